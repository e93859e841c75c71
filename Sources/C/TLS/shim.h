#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

// Macros, which Swift cannot call.
static inline int ctls_set_minimum(SSL_CTX *context, long version) {
    return (int)SSL_CTX_set_min_proto_version(context, version);
}
static inline long ctls_tls12(void) { return TLS1_2_VERSION; }
static inline int ctls_pem(void) { return SSL_FILETYPE_PEM; }
/// Bytes that wait in a BIO of memory.
static inline size_t ctls_pending(BIO *bio) { return BIO_ctrl_pending(bio); }
