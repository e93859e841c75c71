#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
// toml++ asserts what a malformed text may break ("[=" for one), right before it reports it as the fault it is. With
// NDEBUG it would even assume it.
#undef NDEBUG
#define TOML_ASSERT(expression) static_cast<void>(0)
#include "CTOML.h"
#include <algorithm>
#include <new>
#include <string>
#include <string_view>
#include <toml++/toml.h>
#include <vector>

struct ctoml_document {
    toml::table root; // owns the strings that the nodes point to
    std::vector<ctoml_node> nodes;
    std::string error;
    uint32_t line = 0, column = 0;
};

static void walk(ctoml_document &document, const toml::node &node, int64_t parent, const toml::key *key) {
    ctoml_node out{};
    out.parent = parent;
    if (key) {
        out.key = key->data();
        out.key_size = key->length();
        out.key_line = key->source().begin.line;
        out.key_column = key->source().begin.column;
    }
    out.line = node.source().begin.line;
    out.column = node.source().begin.column;
    switch (node.type()) {
    case toml::node_type::table: out.kind = CTOML_TABLE; break;
    case toml::node_type::array: out.kind = CTOML_ARRAY; break;
    case toml::node_type::string: {
        const std::string &text = **node.as_string();
        out.kind = CTOML_STRING;
        out.text = text.data();
        out.text_size = text.size();
        break;
    }
    case toml::node_type::integer:
        out.kind = CTOML_INTEGER;
        out.integer = **node.as_integer();
        break;
    case toml::node_type::floating_point:
        out.kind = CTOML_FLOAT;
        out.number = **node.as_floating_point();
        break;
    case toml::node_type::boolean:
        out.kind = CTOML_BOOLEAN;
        out.integer = **node.as_boolean();
        break;
    default: out.kind = CTOML_TIME; break;
    }
    document.nodes.push_back(out);
    const int64_t self = static_cast<int64_t>(document.nodes.size()) - 1;
    if (const auto *table = node.as_table()) {
        // toml++ sorts by key; a reader wants the order of the text.
        std::vector<std::pair<const toml::key *, const toml::node *>> members;
        for (auto it = table->cbegin(); it != table->cend(); ++it) members.emplace_back(&it->first, &it->second);
        std::sort(members.begin(), members.end(), [](const auto &a, const auto &b) {
            const auto x = a.first->source().begin, y = b.first->source().begin;
            return x.line != y.line ? x.line < y.line : x.column < y.column;
        });
        for (const auto &[name, value] : members) walk(document, *value, self, name);
    } else if (const auto *array = node.as_array()) {
        for (const auto &value : *array) walk(document, value, self, nullptr);
    }
}

ctoml_document *ctoml_parse(const char *text, size_t size) {
    auto *document = new (std::nothrow) ctoml_document;
    if (!document) return nullptr;
    auto result = toml::parse(std::string_view(text, size));
    if (!result) {
        document->error = std::string(result.error().description());
        document->line = result.error().source().begin.line;
        document->column = result.error().source().begin.column;
        return document;
    }
    document->root = std::move(result).table();
    walk(*document, document->root, -1, nullptr);
    return document;
}

const char *ctoml_error(const ctoml_document *document, uint32_t *line, uint32_t *column) {
    if (document->error.empty()) return nullptr;
    *line = document->line;
    *column = document->column;
    return document->error.c_str();
}

size_t ctoml_count(const ctoml_document *document) { return document->nodes.size(); }
const ctoml_node *ctoml_nodes(const ctoml_document *document) { return document->nodes.data(); }
void ctoml_free(ctoml_document *document) { delete document; }
