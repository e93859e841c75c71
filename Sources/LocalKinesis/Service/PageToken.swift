internal import Kinesis

/// What a NextToken's text stands for: how far a listing has come.
struct PageToken: Equatable {
    enum Listing: String {
        case streams
        case shards
    }

    var listing: Listing
    /// The stream whose shards are listed.
    var stream: String
    /// The last one that was listed.
    var last: String
    /// Milliseconds since 1970 at which it was given out.
    var issued: Int64

    init(_ listing: Listing, stream: String, last: String, at now: Moment) {
        (self.listing, self.stream, self.last, issued) = (listing, stream, last, now.milliseconds)
    }

    var text: String { OpaqueText.encode([listing.rawValue, "\(issued)", stream, last]) }

    /// Reads a token that a listing of this kind gave out.
    ///
    /// Tokens live for 300 seconds, as iterators do.
    /// Source: the API reference of ListShards.
    init(_ text: String, of listing: Listing, at now: Moment) throws(Refusal) {
        guard let parts = OpaqueText.decode(text, count: 4), parts[0] == listing.rawValue, let issued = Int64(parts[1]),
            issued >= 0
        else { throw .invalidArgument("NextToken is invalid.") }
        (self.listing, stream, last, self.issued) = (listing, parts[2], parts[3], issued)
        if now.milliseconds - issued > Int64(Limits.iteratorSeconds) * 1000 {
            throw Refusal("ExpiredNextTokenException", "NextToken has expired.")
        }
    }
}
