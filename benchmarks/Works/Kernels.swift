import CBase64
import CCRC32C
import CMD5

// The C of which a processor's instructions decide what runs.

private let data = (0..<50 << 10).map { UInt8(truncatingIfNeeded: $0 &* 31) }

/// Checksums side by side: as many as a processor ever takes.
func sums(by lanes: cmd5_lanes) -> (Int) -> Int {
    { rounds in
        var sum: UInt8 = 0
        for _ in 0..<rounds {
            unsafe data.withUnsafeBytes { data in
                unsafe withUnsafeTemporaryAllocation(byteCount: 32 * 16, alignment: 16) { sums in
                    let messages = unsafe (0..<32).map {
                        unsafe cmd5_message(
                            bytes: data.baseAddress,
                            count: data.count,
                            sum: sums.baseAddress! + $0 * 16
                        )
                    }
                    unsafe cmd5_sums(messages, messages.count, lanes)
                    unsafe sum &+= sums[0]
                }
            }
        }
        return sum == 0 && rounds == 1 ? 0 : rounds * 32
    }
}

func remainders() -> (Int) -> Int {
    { rounds in
        var crc: UInt32 = 0
        for _ in 0..<rounds {
            unsafe data.withUnsafeBytes { unsafe crc = ccrc32c_update(crc, $0.baseAddress, $0.count) }
        }
        return crc == 0 ? 0 : rounds
    }
}

func base64() -> (Int) -> Int {
    var out = [UInt8](repeating: 0, count: (data.count + 2) / 3 * 4)
    return { rounds in
        for _ in 0..<rounds {
            unsafe out.withUnsafeMutableBytes { out in
                unsafe data.withUnsafeBytes { unsafe cbase64_encode($0.baseAddress, $0.count, out.baseAddress) }
            }
        }
        return out[0] == 0 ? 0 : rounds
    }
}

/// Copies 1,000 bytes of text, a hundred times a round.
func texts(
    by copy: @escaping (UnsafeMutableRawPointer?, UnsafeRawPointer?, Int) -> Int
) -> (Int) -> Int {
    let text = [UInt8](repeating: 120, count: 1000)
    var out = [UInt8](repeating: 0, count: 1000)
    return { rounds in
        var bytes = 0
        for _ in 0..<rounds * 100 {
            unsafe out.withUnsafeMutableBytes { out in
                unsafe text.withUnsafeBytes { unsafe bytes += copy(out.baseAddress, $0.baseAddress, $0.count) }
            }
        }
        return bytes / text.count
    }
}
