import Admin
import Agent
import ArgumentParser
import Kinesis
import Platform

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check the configuration: every fault at once, as file:line:column: key: what to do."
    )

    @OptionGroup var source: ConfigurationOption

    func run() throws {
        let configuration = try source.load()
        if configuration.agent.admin != nil {
            do throws(Fault) { _ = try configuration.agent.adminToken(file: source.path) } catch {
                StandardError.write("\(error)\n")
                throw Exit.badConfiguration
            }
        }
        let output = configuration.outputs[0]
        print("\(source.path): no faults")
        for input in configuration.inputs {
            let sources = input.socket?.listen.map(\.description) ?? input.paths
            let place = input.file == source.path ? "" : " of \(input.file)"
            print("  input \(input.name)\(place): \(sources.joined(separator: ", "))")
        }
        let endpoint = KinesisEndpoint(output)
        var place = output.endpoint == .embedded ? "the embedded Kinesis" : endpoint.url
        if output.endpoint != .embedded, endpoint.controlURL != endpoint.url { place += " and \(endpoint.controlURL)" }
        print("  output \(output.name): stream \(output.stream) at \(place)")
    }
}
