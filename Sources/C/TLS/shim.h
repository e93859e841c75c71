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
/// For connections that are mostly silent, and last: no buffers between records, no sessions to take up again.
static inline void ctls_set_lean(SSL_CTX *context) {
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
}
/// Has clients show a certificate that one of those in `path` vouches for. 1, or 0 where the file is unusable.
static inline int ctls_require_clients(SSL_CTX *context, const char *path) {
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (!names) return 0;
    SSL_CTX_set_client_CA_list(context, names);
    if (SSL_CTX_load_verify_locations(context, path, NULL) != 1) return 0;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 1;
}
/// Without a question at a terminal for an encrypted key's password.
static inline int ctls_no_password(char *room, int size, int is_writing, void *context) {
    (void)room, (void)size, (void)is_writing, (void)context;
    return -1;
}
static inline void ctls_ask_nobody(SSL_CTX *context) { SSL_CTX_set_default_passwd_cb(context, ctls_no_password); }
/// Why a certificate is not taken; empty when that is not the matter.
static inline const char *ctls_verify_reason(SSL *session) {
    long result = SSL_get_verify_result(session);
    return result == X509_V_OK ? "" : X509_verify_cert_error_string(result);
}
