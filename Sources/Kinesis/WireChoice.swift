public import Bytes

/// Which form to speak to an endpoint: CBOR, or JSON where CBOR is refused.
///
/// JSON is taken only if no CBOR call ever succeeded and the same call then succeeds as JSON, so that an outage is not
/// mistaken for a refusal; CBOR is tried again hourly.
public struct WireChoice: Sendable {
    private enum State {
        case forced(WireFormat)
        case cborUntried
        case cborWorks
        case tryingJSON
        case json(until: Instant)
    }

    private var state: State
    /// How long JSON is used before CBOR is tried again.
    public static let jsonFor: Duration = .seconds(3600)

    /// - Parameter forced: the one form to speak, if the operator says so.
    public init(forced: WireFormat? = nil) { state = forced.map { .forced($0) } ?? .cborUntried }

    /// The form of the next call.
    public mutating func format(now: Instant) -> WireFormat {
        switch state {
        case .forced(let format): return format
        case .cborUntried, .cborWorks: return .cbor
        case .tryingJSON: return .json
        case .json(let until):
            guard now >= until else { return .json }
            state = .cborUntried
            return .cbor
        }
    }

    /// A call in `format` was understood, whether or not its wish was granted.
    ///
    /// True when this settles on JSON.
    public mutating func understood(_ format: WireFormat, now: Instant) -> Bool {
        switch (state, format) {
        case (.forced, _), (.json, .json), (.cborWorks, _): return false
        case (.cborUntried, .cbor), (.tryingJSON, .cbor), (.json, .cbor):
            state = .cborWorks
            return false
        case (.tryingJSON, .json), (.cborUntried, .json):
            state = .json(until: now + Self.jsonFor)
            return true
        }
    }

    /// A call in `format` was answered with an error that does not show that it was understood.
    ///
    /// True when the same call should be made at once in the other form.
    public mutating func notUnderstood(_ format: WireFormat) -> Bool {
        switch (state, format) {
        case (.cborUntried, .cbor):
            state = .tryingJSON
            return true
        // Others may have settled on JSON while this call was under way.
        case (.tryingJSON, .cbor), (.json, .cbor): return true
        case (.tryingJSON, .json):
            // Neither worked: the endpoint is ill, and nothing is learned about its forms.
            state = .cborUntried
            return false
        case (.forced, _), (.cborWorks, _), (.json, .json), (.cborUntried, .json): return false
        }
    }
}
