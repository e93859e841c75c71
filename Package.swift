// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

// What is run, tested and measured here is what the package installs: with Swift's runtime in it (FoundationEssentials, by
// ArgumentParser, does not name what it stands on), hardened as Debian wants it. No library looks for the program's names:
// exported they would cost 1.5 MiB, on the disk and in memory.
let asShipped: [LinkerSetting] = [
    .unsafeFlags(
        ["-static-stdlib", "-l_FoundationCollections", "-l_FoundationCShims"]
            + ["-z", "relro", "-z", "now", "--no-export-dynamic"].flatMap { ["-Xlinker", $0] }
    )
]

let package = Package(
    name: "penstock",
    products: [
        .executable(name: "penstock", targets: ["penstock"]),
        .library(name: "Kinesis", targets: ["Kinesis"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    ],
    targets: [
        // From the command inwards: what runs, what it is made of, what it stands on.
        .executableTarget(
            name: "penstock",
            dependencies: [
                "Agent", "Admin", "LocalKinesis", "Kinesis", "Platform", "Bytes", "CZlib",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict,
            linkerSettings: asShipped
        ),
        .target(
            name: "Agent",
            dependencies: [
                "Kinesis", "Platform", "Bytes", "CText", "CTOML", .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict
        ),
        // Apart from the agent for its dependencies, which the sanitizers' builds of the agent do without.
        .target(
            name: "Admin",
            dependencies: [
                "Agent", "Kinesis", "Platform", "Bytes",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            resources: [.embedInCode("Page/status.html")],
            swiftSettings: strict
        ),
        .target(
            name: "LocalKinesis",
            dependencies: [
                "Kinesis", "Platform", "Bytes", "CTLS",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            // Its tests look inside, and run against the same release build that ships.
            swiftSettings: strict + [.unsafeFlags(["-enable-testing"])]
        ),
        .target(
            name: "Kinesis",
            dependencies: [
                "Bytes", "COpenSSL", "CMD5", "CProtobufC", "CAggregate", "CBase64", "CISAL", "CSHA256", "CText",
            ],
            swiftSettings: strict
        ),
        .target(
            name: "Platform",
            dependencies: ["Bytes", "CLinux", "CCurl", "CTLS", "CZlib", "CPCRE2"],
            swiftSettings: strict
        ),
        .target(name: "Bytes", dependencies: ["CBase64", "CCRC32C"], swiftSettings: strict),

        // Measured by benchmarks/Spool/run.py.
        .executableTarget(
            name: "spool-benchmark",
            dependencies: ["Agent", "Kinesis", "Platform", "Bytes"],
            path: "benchmarks/Spool",
            exclude: ["run.py"],
            swiftSettings: strict
        ),

        // Measured by benchmarks/Gzip/run.py.
        .executableTarget(
            name: "gzip-benchmark",
            dependencies: ["Kinesis", "CZlib"],
            path: "benchmarks/Gzip",
            exclude: ["run.py"],
            swiftSettings: strict
        ),

        // The inner loops, for those that count and time them.
        .target(
            name: "BenchmarkWorks",
            dependencies: ["Agent", "Kinesis", "Platform", "Bytes", "CBase64", "CCRC32C", "CMD5", "CText"],
            path: "benchmarks/Works",
            swiftSettings: strict
        ),
        // Also for tests.
        .target(name: "CBaseline", path: "benchmarks/Baseline"),

        // Run under callgrind by benchmarks/Instructions/run.py.
        .executableTarget(
            name: "instruction-benchmark",
            dependencies: ["BenchmarkWorks", "CBaseline"],
            path: "benchmarks/Instructions",
            exclude: ["run.py"],
            swiftSettings: strict
        ),

        // A fleet on one stream, simulated; measured by benchmarks/Fleet/run.py.
        .target(
            name: "Fleet",
            dependencies: ["Kinesis", "Bytes"],
            path: "benchmarks/Fleet/Simulation",
            swiftSettings: strict
        ),
        .executableTarget(
            name: "fleet-benchmark",
            dependencies: ["Fleet"],
            path: "benchmarks/Fleet/Command",
            swiftSettings: strict
        ),

        // C and C++: tiny typed shims, and the system's libraries by their Debian names.
        .target(name: "CLinux", path: "Sources/C/Linux", cSettings: [.define("_GNU_SOURCE")]),
        .target(
            name: "CAggregate",
            dependencies: ["CProtobufC"],
            path: "Sources/C/Aggregate",
            exclude: ["aggregate.proto"]
        ),
        .target(name: "CCRC32C", path: "Sources/C/CRC32C"),
        .target(name: "CBase64", path: "Sources/C/Base64"),
        .target(name: "CMD5", path: "Sources/C/MD5", exclude: ["kernel.inc"]),
        .target(name: "CSHA256", dependencies: ["CBase64"], path: "Sources/C/SHA256"),
        .target(name: "CText", path: "Sources/C/Text"),
        .target(name: "CTOML", path: "Sources/C/TOML"),
        .systemLibrary(
            name: "CCurl",
            path: "Sources/C/Curl",
            pkgConfig: "libcurl",
            providers: [.apt(["libcurl4-openssl-dev"])]
        ),
        .systemLibrary(
            name: "COpenSSL",
            path: "Sources/C/OpenSSL",
            pkgConfig: "libcrypto",
            providers: [.apt(["libssl-dev"])]
        ),
        .systemLibrary(
            name: "CTLS",
            path: "Sources/C/TLS",
            pkgConfig: "libssl",
            providers: [.apt(["libssl-dev"])]
        ),
        .systemLibrary(name: "CISAL", path: "Sources/C/ISAL", pkgConfig: "libisal", providers: [.apt(["libisal-dev"])]),
        .systemLibrary(name: "CZlib", path: "Sources/C/Zlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(
            name: "CPCRE2",
            path: "Sources/C/PCRE2",
            pkgConfig: "libpcre2-8",
            providers: [.apt(["libpcre2-dev"])]
        ),
        .systemLibrary(
            name: "CProtobufC",
            path: "Sources/C/ProtobufC",
            pkgConfig: "libprotobuf-c",
            providers: [.apt(["libprotobuf-c-dev"])]
        ),

        // Chance that a test can repeat: shared by all of them.
        .target(name: "Seeded", path: "Tests/Seeded", swiftSettings: strict),
        .testTarget(name: "BytesTests", dependencies: ["Bytes", "Seeded", "CCRC32C"], swiftSettings: strict),
        .testTarget(
            name: "KinesisTests",
            dependencies: [
                "Kinesis", "Bytes", "CAggregate", "CBase64", "CMD5", "COpenSSL", "CProtobufC", "CZlib", "Seeded",
            ],
            swiftSettings: strict
        ),
        .testTarget(name: "FleetTests", dependencies: ["Fleet"], swiftSettings: strict),
        .testTarget(
            name: "LocalKinesisTests",
            dependencies: ["LocalKinesis", "Kinesis", "Seeded"],
            swiftSettings: strict
        ),
        .testTarget(name: "PlatformTests", dependencies: ["Platform", "Bytes", "Seeded"], swiftSettings: strict),
        // Without LocalKinesis, so that the thread sanitizer builds it soon.
        .testTarget(
            name: "LoadTests",
            dependencies: [
                "Agent", "Kinesis", "Platform", "Bytes", "Seeded", .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "AgentTests",
            dependencies: [
                "Agent", "Kinesis", "Platform", "Bytes", "LocalKinesis", "Seeded", "CText", "CBaseline",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "AdminTests",
            dependencies: ["Admin", "Agent", "Kinesis", "Platform", "Seeded"],
            swiftSettings: strict
        ),
    ],
    swiftLanguageModes: [.v6],
    cxxLanguageStandard: .cxx20
)

func isLogging(_ dependency: Package.Dependency) -> Bool {
    if case .sourceControl(_, let location, _) = dependency.kind { location.hasSuffix("swift-log") } else { false }
}

// With PENSTOCK_BENCHMARKS set it has the inner loops' times, too, and a dependency that nothing else needs.
if Context.environment["PENSTOCK_BENCHMARKS"] != nil {
    package.dependencies.append(.package(url: "https://github.com/ordo-one/benchmark", from: "1.38.1", traits: []))
    package.targets.append(
        .executableTarget(
            name: "micro-benchmark",
            dependencies: [
                "BenchmarkWorks", .product(name: "Benchmark", package: "benchmark"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "benchmarks/Micro",
            swiftSettings: strict
        )
    )
}

// With PENSTOCK_THREADS set the package is what threads share and its tests: the thread sanitizer builds that alone.
if Context.environment["PENSTOCK_THREADS"] != nil {
    let needed = [
        "Bytes", "BytesTests", "Platform", "PlatformTests", "Agent", "Kinesis", "LoadTests", "Seeded",
        "CLinux", "CCurl", "CCRC32C", "CTLS", "CZlib", "CPCRE2", "CText", "CTOML", "COpenSSL", "CProtobufC",
        "CAggregate", "CBase64", "CMD5", "CSHA256", "CISAL",
    ]
    package.dependencies = package.dependencies.filter { isLogging($0) }
    package.products = []
    package.targets = package.targets.filter { needed.contains($0.name) }
}

// With PENSTOCK_FUZZ set the package is the fuzz targets and what they need, built for libFuzzer: see Tests/Fuzz/run.
if Context.environment["PENSTOCK_FUZZ"] != nil {
    let coverage: SwiftSetting = .unsafeFlags(["-sanitize=fuzzer", "-parse-as-library"])
    func fuzz(_ name: String, of modules: [String]) -> Target {
        .executableTarget(
            name: "fuzz-" + name.lowercased(),
            dependencies: modules.map { .byName(name: $0) } + ["CFuzzStart"],
            path: "Tests/Fuzz/" + name,
            exclude: ["corpus"],
            swiftSettings: strict,
            linkerSettings: [.unsafeFlags(["-sanitize=fuzzer"])]
        )
    }
    // What the fuzz targets need besides themselves; a new one adds its modules here.
    let needed = [
        "Agent", "Platform", "Kinesis", "Bytes", "CText", "CTOML", "CLinux", "CCurl", "CTLS", "CZlib", "CPCRE2",
        "COpenSSL", "CProtobufC", "CAggregate", "CBase64", "CCRC32C", "CMD5", "CSHA256", "CISAL",
    ]
    // Agent logs by swift-log; the other packages are not built.
    package.dependencies = package.dependencies.filter { isLogging($0) }
    package.products = []
    package.targets = package.targets.filter { needed.contains($0.name) }
    for target in package.targets where target.type == .regular {
        target.cSettings = (target.cSettings ?? []) + [.unsafeFlags(["-fsanitize=fuzzer-no-link"])]
    }
    package.targets += [
        fuzz("CBOR", of: ["Kinesis", "Bytes"]),
        fuzz("Configuration", of: ["Agent", "Kinesis"]),
        fuzz("Deaggregator", of: ["Kinesis", "Bytes", "CAggregate", "CProtobufC"]),
        fuzz("Framer", of: ["Agent"]),
        fuzz("JSON", of: ["Kinesis", "Bytes"]),
        fuzz("Syslog", of: ["Agent", "Kinesis", "Bytes"]),
        .target(name: "CFuzzStart", path: "Tests/Fuzz/Start"),
    ]
    for target in package.targets where target.type == .regular || target.type == .executable {
        target.swiftSettings = (target.swiftSettings ?? []) + [coverage]
    }
}
