#include <curl/curl.h>

// curl_easy_setopt and its kin are variadic, which Swift cannot call: one shim per kind of argument.
static inline CURLcode ccurl_set_long(CURL *easy, CURLoption option, long value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_size(CURL *easy, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_pointer(CURL *easy, CURLoption option, const void *value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_text(CURL *easy, CURLoption option, const char *value) {
    return curl_easy_setopt(easy, option, value);
}
/// Both the body's source (READFUNCTION) and the sinks (WRITEFUNCTION, HEADERFUNCTION) have this shape.
typedef size_t (*ccurl_move)(char *bytes, size_t size, size_t count, void *context);
static inline CURLcode ccurl_set_move(CURL *easy, CURLoption option, ccurl_move value) {
    return curl_easy_setopt(easy, option, value);
}
typedef int (*ccurl_seek)(void *context, curl_off_t offset, int origin);
static inline CURLcode ccurl_set_seek(CURL *easy, ccurl_seek value) {
    return curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, value);
}
static inline CURLcode ccurl_get_long(CURL *easy, CURLINFO info, long *out) { return curl_easy_getinfo(easy, info, out); }
static inline CURLcode ccurl_size_uploaded(CURL *easy, curl_off_t *out) {
    return curl_easy_getinfo(easy, CURLINFO_SIZE_UPLOAD_T, out);
}
static inline CURLMcode ccurl_multi_set_long(CURLM *multi, CURLMoption option, long value) {
    return curl_multi_setopt(multi, option, value);
}
/// The result of a message whose kind is CURLMSG_DONE; Swift cannot read a C union by name of an anonymous member.
static inline CURLcode ccurl_result(const CURLMsg *message) { return message->data.result; }
