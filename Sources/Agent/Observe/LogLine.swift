package import Bytes
import Kinesis
public import Logging
internal import Platform
import Synchronization

/// Writes each event as one line on standard error: time, level, message, and what it is about.
///
///     2026-11-21T01:40:00.123Z notice file rotated path=/var/log/app.log offset=1234
///
/// Messages are constant texts and details are metadata, so that a flood of one message can be told from many events: of
/// each message a few pass in ten seconds, and the next that passes says how many did not. At debug all pass.
public struct LogLine: LogHandler {
    /// The same for all copies: another configuration may change it.
    public var logLevel: Logger.Level {
        get { limiter.level.withLock { $0 } }
        set { limiter.level.withLock { $0 = newValue } }
    }
    /// The level, to change it where a copy is at hand that cannot be changed.
    public var level: Logger.Level {
        get { logLevel }
        nonmutating set { limiter.level.withLock { $0 = newValue } }
    }
    public var metadata: Logger.Metadata = [:]
    private let label: String
    private let limiter: Limiter
    /// Whether lines bear their priority, as the journal reads it.
    private let hasPriorities = StandardError.isJournal
    /// The same for all copies.
    public let recent = RecentEvents()

    public init(label: String, level: Logger.Level) {
        (self.label, limiter) = (label, Limiter(level))
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        let text = event.message.description
        let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
        let milliseconds = Machine.wallMilliseconds()
        guard let line = line(event.level, text, all, milliseconds: milliseconds, now: .now) else { return }
        StandardError.write(hasPriorities ? "<\(Self.priority(of: event.level))>\(line)" : line)
    }

    /// As syslog numbers severities (RFC 5424, 6.2.1).
    private static func priority(of level: Logger.Level) -> Int {
        switch level {
        case .critical: 2
        case .error: 3
        case .warning: 4
        case .notice: 5
        case .info: 6
        case .debug, .trace: 7
        }
    }

    /// The line of an event; nil when it is one too many.
    package func line(
        _ level: Logger.Level,
        _ text: String,
        _ metadata: Logger.Metadata,
        milliseconds: Int64,
        now: Instant
    ) -> String? {
        guard let suppressed = logLevel <= .debug ? 0 : limiter.admit(text, now: now) else { return nil }
        var details = metadata.sorted { $0.key < $1.key }.map { "\($0.key)=\(Self.quoted("\($0.value)"))" }
        if suppressed > 0 { details.append("suppressed=\(suppressed)") }
        let rest = details.joined(separator: " ")
        if level >= .warning {
            recent.add(.init(time: milliseconds, level: level.rawValue, message: text, details: rest))
        }
        return "\(Self.timestamp(milliseconds)) \(level.rawValue) \(text)\(rest.isEmpty ? "" : " ")\(rest)\n"
    }

    /// `2026-11-21T01:40:00.123Z`.
    package static func timestamp(_ milliseconds: Int64) -> String {
        let time = SigningTime(unixSeconds: milliseconds / 1000).text
        func part(_ from: Int, _ count: Int) -> Substring { time.dropFirst(from).prefix(count) }
        let fraction = String(1000 + milliseconds % 1000).dropFirst()
        return "\(part(0, 4))-\(part(4, 2))-\(part(6, 2))T\(part(9, 2)):\(part(11, 2)):\(part(13, 2)).\(fraction)Z"
    }

    /// A value with spaces, quotes or control characters is quoted, so that an event stays one line.
    private static func quoted(_ value: String) -> String {
        let plain = value.unicodeScalars.allSatisfy { $0.value > 0x20 && $0 != "\"" && $0.value != 0x7f }
        if plain && !value.isEmpty { return value }
        return String(decoding: WireFormat.json.encode(.text(value)), as: UTF8.self)
    }

    private final class Limiter: Sendable {
        private struct Window {
            var start: Instant
            var passed = 0
            var suppressed = 0
        }

        let level: Mutex<Logger.Level>
        init(_ level: Logger.Level) { self.level = Mutex(level) }

        private let windows = Mutex<[String: Window]>([:])
        private static let mostInWindow = 5
        private static let window: Duration = .seconds(10)

        /// How many equal messages were held back before this one; nil: hold this one back.
        func admit(_ text: String, now: Instant) -> Int? {
            windows.withLock { windows in
                var window = windows[text] ?? Window(start: now)
                if now - window.start >= Self.window {
                    window.start = now
                    window.passed = 0
                }
                defer { windows[text] = window }
                guard window.passed < Self.mostInWindow else {
                    window.suppressed += 1
                    return nil
                }
                window.passed += 1
                defer { window.suppressed = 0 }
                return window.suppressed
            }
        }
    }
}

extension Configuration.LogLevel {
    /// The level of swift-log.
    public var level: Logger.Level {
        switch self {
        case .trace: .trace
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        }
    }
}
