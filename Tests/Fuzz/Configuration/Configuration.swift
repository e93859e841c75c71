import Agent
import Kinesis

/// The configuration reader takes any bytes: it gives a configuration, or faults that stand where the text is.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let text = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    let lines = text.count { $0 == 10 } + 1
    do throws(Faults) {
        let configuration = try Configuration(
            text: text,
            file: "fuzz",
            environment: { $0.isEmpty || $0.hasPrefix("AWS_") ? nil : $0 }
        )
        // What is accepted can be run: a stream, an input with a pattern or an address, sizes that fit each other.
        precondition(configuration.outputs.count == 1 && !configuration.outputs[0].stream.text.isEmpty)
        precondition(!configuration.inputs.isEmpty)
        precondition(
            configuration.inputs.allSatisfy { input in input.socket.map { !$0.listen.isEmpty } ?? !input.paths.isEmpty }
        )
        precondition(configuration.inputs.allSatisfy { $0.maxRecord >= 1 })
    } catch {
        precondition(!error.faults.isEmpty)
        for fault in error.faults {
            precondition((0...lines).contains(fault.place.line), "line \(fault.place.line) of \(lines)")
            precondition(!fault.message.isEmpty)
        }
    }
    return 0
}
