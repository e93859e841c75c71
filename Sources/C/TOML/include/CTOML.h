#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// What toml++ made of a text: its nodes in one array, each with the place it stands at.
typedef struct ctoml_document ctoml_document;

enum ctoml_kind {
    CTOML_TABLE,
    CTOML_ARRAY,
    CTOML_STRING,
    CTOML_INTEGER,
    CTOML_FLOAT,
    CTOML_BOOLEAN,
    CTOML_TIME,
};

struct ctoml_node {
    /// Index of the table or array it stands in; -1 for the root, which is the first node.
    int64_t parent;
    enum ctoml_kind kind;
    /// In a table: its key, and where that stands.
    const char *key;
    size_t key_size;
    uint32_t key_line, key_column;
    /// A string's bytes.
    const char *text;
    size_t text_size;
    /// An integer, or a boolean as 0 or 1.
    int64_t integer;
    double number;
    uint32_t line, column;
};

/// Parses TOML 1.0. Never NULL but when memory is out; `ctoml_error` tells whether it worked.
ctoml_document *ctoml_parse(const char *text, size_t size);
/// What is wrong, and where; NULL when nothing is.
const char *ctoml_error(const ctoml_document *document, uint32_t *line, uint32_t *column);
size_t ctoml_count(const ctoml_document *document);
const struct ctoml_node *ctoml_nodes(const ctoml_document *document);
void ctoml_free(ctoml_document *document);

#ifdef __cplusplus
}
#endif
