/// Up to 48 bytes of text that is written again and again.
struct PreparedText: Equatable {
    private var (first, second, third): (SIMD16<UInt8>, SIMD16<UInt8>, SIMD16<UInt8>) = (.zero, .zero, .zero)
    private var count = 0

    static let mostBytes = 48

    init() {}

    init(_ text: Span<UInt8>) {
        precondition(text.count <= Self.mostBytes)
        count = text.count
        unsafe withUnsafeMutableBytes(of: &self) { all in
            for index in text.indices { unsafe all[index] = text[index] }
        }
    }

    func withBytes<Result>(_ body: (Span<UInt8>) -> Result) -> Result {
        unsafe withUnsafeBytes(of: self) { unsafe body(Span(_unsafeBytes: .init(rebasing: $0[..<count]))) }
    }

    /// Writes 48 bytes, of which as many count as it returns.
    @unsafe @inline(__always)
    func copy(to place: UnsafeMutableRawPointer) -> Int {
        unsafe place.storeBytes(of: first, as: SIMD16<UInt8>.self)
        unsafe place.storeBytes(of: second, toByteOffset: 16, as: SIMD16<UInt8>.self)
        unsafe place.storeBytes(of: third, toByteOffset: 32, as: SIMD16<UInt8>.self)
        return count
    }
}
