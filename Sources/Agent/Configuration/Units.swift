/// Sizes and durations as people write them.
public enum Units {
    private static let sizes: [(unit: String, bytes: Int)] = [
        ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("KB", 1000), ("MB", 1_000_000),
        ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("B", 1),
    ]
    private static let durations: [(unit: String, nanoseconds: Int64)] = [
        ("ns", 1), ("us", 1000), ("µs", 1000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000),
        ("h", 3_600_000_000_000), ("d", 86_400_000_000_000),
    ]

    /// `"50KiB"`, `"1.5MiB"`, `"100"` → bytes.
    public static func bytes(_ text: String) -> Int? {
        guard let (number, unit) = split(text) else { return nil }
        guard let scale = unit.isEmpty ? 1 : sizes.first(where: { $0.unit == unit })?.bytes else { return nil }
        let bytes = number * Double(scale)
        return bytes < 0x1p62 ? Int(exactly: bytes.rounded()) : nil
    }

    /// `"100ms"`, `"1.5h"` → the duration.
    public static func duration(_ text: String) -> Duration? {
        guard let (number, unit) = split(text), let scale = durations.first(where: { $0.unit == unit })?.nanoseconds
        else { return nil }
        let nanoseconds = number * Double(scale)
        return nanoseconds < 0x1p62 ? .nanoseconds(Int64(nanoseconds.rounded())) : nil
    }

    private static func split(_ text: String) -> (Double, String)? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let number = Double(digits), number.isFinite, number >= 0 else { return nil }
        return (number, String(text[digits.endIndex...].drop { $0 == " " }))
    }

    /// Bytes in the largest binary unit that leaves no fraction.
    public static func text(bytes: Int) -> String {
        for (unit, scale) in sizes[..<4].reversed() where bytes >= scale && bytes % scale == 0 {
            return "\(bytes / scale)\(unit)"
        }
        return "\(bytes)B"
    }

    /// A duration in the largest unit that leaves no fraction.
    public static func text(duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        let nanoseconds = seconds * 1_000_000_000 + attoseconds / 1_000_000_000
        for (unit, scale) in durations.reversed() where unit != "µs" && nanoseconds >= scale && nanoseconds % scale == 0
        {
            return "\(nanoseconds / scale)\(unit)"
        }
        return "\(nanoseconds)ns"
    }
}
