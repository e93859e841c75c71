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
    /// Which of its shards; all of other listings.
    var filter: ShardFilter
    /// Milliseconds since 1970 at which it was given out.
    var issued: Int64

    init(_ listing: Listing, stream: String, last: String, _ filter: ShardFilter = .all, at now: Moment) {
        (self.listing, self.stream, self.last, self.filter) = (listing, stream, last, filter)
        issued = now.milliseconds
    }

    var text: String { OpaqueText.encode([listing.rawValue, "\(issued)", filter.text, stream, last]) }

    /// Reads a token that a listing of this kind gave out.
    ///
    /// Tokens live for 300 seconds, as iterators do.
    /// Source: the API reference of ListShards.
    init(_ text: String, of listing: Listing, at now: Moment) throws(Refusal) {
        guard let parts = OpaqueText.decode(text, count: 5), parts[0] == listing.rawValue, let issued = Int64(parts[1]),
            issued >= 0, let filter = ShardFilter(text: parts[2])
        else { throw .invalidArgument("NextToken is invalid.") }
        (self.listing, stream, last, self.issued, self.filter) = (listing, parts[3], parts[4], issued, filter)
        if now.milliseconds - issued > Int64(Limits.iteratorSeconds) * 1000 {
            throw Refusal("ExpiredNextTokenException", "NextToken has expired.")
        }
    }
}

extension ShardFilter {
    fileprivate var text: String {
        switch self {
        case .all: "all"
        case .open: "open"
        case .at(let time): "at \(time)"
        case .from(let time): "from \(time)"
        }
    }

    fileprivate init?(text: String) {
        let words = text.split(separator: " ")
        switch (words.first, words.count == 2 ? Int64(words[1]) : nil) {
        case ("all", nil): self = .all
        case ("open", nil): self = .open
        case ("at", let time?): self = .at(time)
        case ("from", let time?): self = .from(time)
        default: return nil
        }
    }
}
