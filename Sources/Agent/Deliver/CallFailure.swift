public import Kinesis
import Logging
public import Platform

/// Why a call brought no usable answer.
public enum CallFailure: Error, Sendable, CustomStringConvertible {
    /// The service, or something in front of it, answered an error.
    case service(ServiceError)
    case transport(TransportError)
    /// The answer cannot be trusted.
    case distrusted(String)
    case credentials(String)

    public var description: String {
        switch self {
        case .service(let error): "\(error)"
        case .transport(let error): error.message
        case .distrusted(let reason): reason
        case .credentials(let reason): reason
        }
    }

    /// What happened, and what to do where somebody must do something.
    var advice: Logger.Message {
        let error: ServiceError
        switch self {
        case .transport(let error):
            switch error.certificate {
            case .trust?:
                return "the endpoint's certificate is not trusted: set ca_file to the certificate of who signed it"
            case .name?: return "the endpoint's certificate names another host: correct endpoint"
            case .time?: return "the endpoint's certificate is not valid at this time: look at this machine's clock"
            case .file?: return "ca_file cannot be read: correct it"
            case nil: return "Kinesis cannot be reached, trying again"
            }
        case .distrusted: return "Kinesis gave an answer that cannot be trusted, calling again"
        case .credentials: return "there are no AWS credentials; what was tried stands in reason; looking again"
        case .service(let answered): error = answered
        }
        switch error.code {
        case "ResourceNotFoundException": return "the stream does not exist: create it, or correct stream and region"
        case "AccessDeniedException": return "access is denied: allow kinesis:PutRecords and kinesis:ListShards"
        case _ where error.kind == .credentials:
            return "the AWS credentials are not accepted: correct or renew them"
        case _ where isOfContent: return "Kinesis refuses what is in a call, looking for the record"
        default: return "Kinesis refused a call, trying again"
        }
    }

    /// Whether the call may have been carried out nevertheless.
    var mayHaveArrived: Bool {
        switch self {
        case .service(let error): error.kind == .transient
        case .transport(let error): error.mayHaveArrived
        case .distrusted: true
        case .credentials: false
        }
    }

    /// Whether a call's content was refused: a record in it may be why.
    var isOfContent: Bool {
        guard case .service(let error) = self else { return false }
        return ["ValidationException", "InvalidArgumentException", "SerializationException", "HTTP 413"].contains(
            error.code
        )
    }

    /// Whether there is no such stream.
    var isOfMissingStream: Bool {
        guard case .service(let error) = self else { return false }
        return error.code == "ResourceNotFoundException"
    }

    /// Whether the service answers this call so for whoever asks, until somebody allows it or teaches it the call.
    var isRefusal: Bool {
        guard case .service(let error) = self else { return false }
        return error.kind == .permanent && !isOfMissingStream
    }

    /// Bytes had left, and no answer came in time.
    var isTimeout: Bool {
        guard case .transport(let error) = self else { return false }
        return error.isTimeout && error.mayHaveArrived
    }

    /// Whether trying again as it is cannot help.
    var isPermanent: Bool {
        switch self {
        case .service(let error): error.kind == .permanent || error.kind == .credentials
        case .transport(let error): error.isPermanent
        case .distrusted: false
        case .credentials: true
        }
    }
}
