import Kinesis
import Testing

/// Every region is compared with botocore's rules in Tests/Interop/test_endpoints.py.
@Suite struct EndpointsTests {
    @Test func `a region that nobody knows yet lies in aws`() {
        #expect(Partition(region: "moon-west-1").name == "aws")
        #expect(RegionalEndpoints(region: "moon-west-1").url(of: "sts") == "https://sts.moon-west-1.amazonaws.com")
    }

    @Test func `STS is where its rules have it`() {
        func url(_ region: String, _ isFIPS: Bool, _ isDualStack: Bool) -> String {
            RegionalEndpoints(region: region, isFIPS: isFIPS, isDualStack: isDualStack).url(of: "sts")
        }
        #expect(url("eu-west-1", false, false) == "https://sts.eu-west-1.amazonaws.com")
        #expect(url("us-east-1", true, false) == "https://sts-fips.us-east-1.amazonaws.com")
        #expect(url("us-east-1", true, true) == "https://sts-fips.us-east-1.api.aws")
        #expect(url("us-gov-west-1", true, false) == "https://sts.us-gov-west-1.amazonaws.com")
        #expect(url("cn-north-1", false, true) == "https://sts.cn-north-1.api.amazonwebservices.com.cn")
    }

    @Test(
        arguments: [
            ("https://kinesis.eu-west-1.amazonaws.com", "kinesis.eu-west-1.amazonaws.com", "/"),
            ("https://host:443/", "host", "/"), ("https://host:80/a/b?c=d", "host:80", "/a/b"),
            ("http://127.0.0.1:4567", "127.0.0.1:4567", "/"), ("http://host:80", "host", "/"),
            ("http://[::1]:8080/x", "[::1]:8080", "/x"), ("http://host?q", "host", "/"),
        ]
    )
    func `an address has the host and the path that are signed`(url: String, host: String, path: String) {
        #expect(ServiceURL(url).host == host && ServiceURL(url).path == path)
    }
}
