/// A row of values in memory of its own, made once: for values that have one owner, which `Array` cannot hold.
@safe
public struct FixedArray<Element: ~Copyable>: ~Copyable {
    @usableFromInline let elements: UnsafeMutableBufferPointer<Element>

    /// - Parameters:
    ///   - count: how many values.
    ///   - make: makes the value at an index; called once for each.
    public init(count: Int, _ make: (Int) -> Element) {
        unsafe elements = .allocate(capacity: count)
        for index in 0..<count { unsafe elements.initializeElement(at: index, to: make(index)) }
    }

    deinit {
        unsafe elements.deinitialize()
        unsafe elements.deallocate()
    }

    @inlinable public var count: Int { unsafe elements.count }
    @inlinable public var indices: Range<Int> { 0..<count }

    @inlinable
    public subscript(index: Int) -> Element {
        // Addressors, not coroutines: the compiler crashes on generic coroutines under the thread sanitizer.
        unsafeAddress {
            precondition(indices.contains(index))
            return unsafe UnsafePointer(elements.baseAddress! + index)
        }
        unsafeMutableAddress {
            precondition(indices.contains(index))
            return unsafe elements.baseAddress! + index
        }
    }

    /// The value at an index of which the caller knows that it is one.
    @unsafe @inlinable
    public subscript(unchecked index: Int) -> Element {
        unsafeAddress { unsafe UnsafePointer(elements.baseAddress.unsafelyUnwrapped + index) }
        unsafeMutableAddress { unsafe elements.baseAddress.unsafelyUnwrapped + index }
    }
}
