
/*
 * Bearer tokens: how they are written, and their hash.
 */

#include "ngx_agent_bearer.h"
#include <openssl/evp.h>


static ngx_uint_t ngx_agent_bearer_is_char(u_char c);


/* stays: to look the algorithm up each time takes longer than the hash */
static EVP_MD_CTX  *ngx_agent_bearer_md;


ngx_int_t
ngx_agent_bearer(ngx_str_t *value, ngx_str_t *token)
{
    size_t   n;
    u_char  *p, *last;

    static const char  scheme[] = "bearer";

    if (value == NULL || value->len < sizeof(scheme) - 1
        || ngx_strncasecmp(value->data, (u_char *) scheme,
                           sizeof(scheme) - 1)
           != 0)
    {
        return NGX_DECLINED;
    }

    p = value->data + sizeof(scheme) - 1;
    last = value->data + value->len;

    if (p == last) {
        return NGX_ERROR;
    }

    if (*p != ' ') {
        /* "Bearerish": a scheme of somebody else's */
        return ngx_agent_bearer_is_char(*p) ? NGX_DECLINED : NGX_ERROR;
    }

    while (p < last && *p == ' ') {
        p++;
    }

    token->data = p;

    while (p < last && ngx_agent_bearer_is_char(*p)) {
        p++;
    }

    n = p - token->data;

    while (p < last && *p == '=') {
        p++;
    }

    token->len = p - token->data;

    return (n && p == last && token->len <= NGX_AGENT_BEARER_MAX) ? NGX_OK
                                                                  : NGX_ERROR;
}


static ngx_uint_t
ngx_agent_bearer_is_char(u_char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9')
           || c == '-' || c == '.' || c == '_' || c == '~' || c == '+'
           || c == '/';
}


ngx_int_t
ngx_agent_bearer_hash(ngx_str_t *token, u_char hash[NGX_AGENT_KEY_HASH])
{
    EVP_MD_CTX  *md;

    md = ngx_agent_bearer_md;

    if (md == NULL) {
        md = EVP_MD_CTX_new();

        if (md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) {
            EVP_MD_CTX_free(md);
            return NGX_ERROR;
        }

        ngx_agent_bearer_md = md;

    } else if (EVP_DigestInit_ex(md, NULL, NULL) != 1) {
        return NGX_ERROR;
    }

    return EVP_DigestUpdate(md, token->data, token->len) == 1
           && EVP_DigestFinal_ex(md, hash, NULL) == 1 ? NGX_OK : NGX_ERROR;
}


void
ngx_agent_bearer_exit(void)
{
    EVP_MD_CTX_free(ngx_agent_bearer_md);
    ngx_agent_bearer_md = NULL;
}
