import Bytes
import Seeded
import Testing

@Suite struct ByteWriterTests {
    @Test func `holds what was appended, however it was appended`() {
        var random = Random()
        for _ in 0..<200 {
            var writer = ByteWriter(capacity: random.below(64))
            var model: [UInt8] = []
            for _ in 0..<random.below(200) {
                switch random.below(6) {
                case 0:
                    let byte = UInt8(truncatingIfNeeded: random.next())
                    writer.append(byte)
                    model.append(byte)
                case 1:
                    let bytes = random.bytes(random.below(300))
                    writer.append(bytes.span)
                    model += bytes
                case 2:
                    writer.append("static é")
                    model += Array("static é".utf8)
                case 3:
                    let text = String(random.next(), radix: 36) + "日"
                    writer.append(text: text)
                    model += Array(text.utf8)
                case 4:
                    let most = random.below(100)
                    let bytes = random.bytes(random.below(most + 1))
                    unsafe writer.append(upTo: most) { room in
                        unsafe room.copyBytes(from: bytes)
                        return bytes.count
                    }
                    model += bytes
                default:
                    if random.oneIn(20) {
                        writer.clear(keeping: random.oneIn(2) ? .max : random.below(100))
                        model = []
                    }
                }
                #expect(writer.count == model.count, random.note)
            }
            #expect(writer.array == model, random.note)
            let from = random.below(model.count + 1)
            let part = writer.withBytes(from..<model.count) { Array($0) }
            #expect(part == Array(model[from...]), random.note)
        }
    }

    @Test func `a range past the end is a programming error`() async {
        await #expect(processExitsWith: .failure) {
            let writer = ByteWriter(capacity: 100)
            writer.withBytes(0..<1) { _ in }
        }
    }

    @Test func `a fill that says it used more than it was lent is a programming error`() async {
        await #expect(processExitsWith: .failure) {
            var writer = ByteWriter(capacity: 100)
            unsafe writer.append(upTo: 10) { _ in 11 }
        }
    }
}
