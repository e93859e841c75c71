import ArgumentParser

struct Completion: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print the completion script for a shell.",
        discussion: "For bash: penstock completion bash > /etc/bash_completion.d/penstock"
    )

    @Argument(help: "bash, zsh or fish")
    var shell: String

    func run() throws {
        guard ["bash", "zsh", "fish"].contains(shell) else {
            throw ValidationError("there are scripts for bash, zsh and fish, not for \"\(shell)\"")
        }
        print(Penstock.completionScript(for: CompletionShell(rawValue: shell)!))
    }
}
