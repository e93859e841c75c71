/// What is where in a syslog message: places, no bytes.
package struct SyslogMessage: Equatable, Sendable {
    /// A run of a message's bytes; an empty one stands for what the message does not have.
    package struct Part: Equatable, Sendable {
        var start: UInt32 = 0
        var count: UInt32 = 0

        init() {}

        init(_ start: Int, _ end: Int) {
            self.start = UInt32(truncatingIfNeeded: start)
            count = UInt32(truncatingIfNeeded: end - start)
        }

        @inline(__always) package var isEmpty: Bool { count == 0 }
        @inline(__always) package var range: Range<Int> { Int(start)..<Int(start) + Int(count) }
    }

    package enum Form: UInt8, Sendable {
        /// Neither a priority nor a time at its start: all of it is the message.
        case unparsed
        /// RFC 3164, as loosely as it is written; a part that is not recognised belongs to the message.
        case bsd
        /// RFC 5424.
        case structured
    }

    package internal(set) var form = Form.unparsed
    /// Facility times eight plus severity; `noPriority` if the message has none.
    package internal(set) var priority = noPriority
    package internal(set) var time = SyslogTime()
    /// The time as it was sent, where that is RFC 3339.
    package internal(set) var timeText = Part()
    package internal(set) var host = Part()
    /// APP-NAME, or the tag without what follows the name.
    package internal(set) var application = Part()
    package internal(set) var processID = Part()
    package internal(set) var messageID = Part()
    /// The elements with their brackets; well-formed.
    package internal(set) var structuredData = Part()
    /// Without a byte order mark in front, and without line ends and NULs at the end.
    package internal(set) var text = Part()

    package static let noPriority: UInt8 = 255

    @inline(__always) package var isParsed: Bool { form != .unparsed }
    package var facility: StaticString? {
        priority == Self.noPriority ? nil : Self.facilities[Int(priority >> 3)]
    }
    package var severity: StaticString? {
        priority == Self.noPriority ? nil : Self.severities[Int(priority & 7)]
    }

    /// By their code (RFC 5424, 6.2.1), named as in syslog.conf; 12 to 15 have no name that all systems share.
    package static let facilities: [StaticString] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
        "ntp", "audit", "alert", "clock",
        "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
    ]
    package static let severities: [StaticString] = [
        "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
    ]
}
