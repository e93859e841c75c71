/// Memory that its owner frees with itself.
@safe package struct OwnMemory: ~Copyable {
    package let bytes: UnsafeMutableRawBufferPointer

    init(_ count: Int) { unsafe bytes = .allocate(byteCount: count, alignment: 64) }

    deinit { unsafe bytes.deallocate() }
}
