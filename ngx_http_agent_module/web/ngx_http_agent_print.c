
/*
 * Prints, by libcrypto.  Bytes only: sees no request.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <openssl/evp.h>
#include "ngx_http_agent_print.h"


struct ngx_http_agent_print_s {
    ngx_pool_t                *pool;
    EVP_MD_CTX                *md;
    unsigned                   failed:1;
};


static void ngx_http_agent_print_cleanup(void *data);


ngx_http_agent_print_t *
ngx_http_agent_print_create(ngx_pool_t *pool)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_agent_print_t  *print;

    cln = ngx_pool_cleanup_add(pool, sizeof(ngx_http_agent_print_t));
    if (cln == NULL) {
        return NULL;
    }

    print = cln->data;

    print->pool = pool;
    print->failed = 0;
    print->md = EVP_MD_CTX_new();

    if (print->md == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_agent_print_cleanup;

    if (EVP_DigestInit_ex(print->md, EVP_sha256(), NULL) != 1) {
        return NULL;
    }

    return print;
}


static void
ngx_http_agent_print_cleanup(void *data)
{
    ngx_http_agent_print_t  *print = data;

    EVP_MD_CTX_free(print->md);
    print->md = NULL;
}


void
ngx_http_agent_print_field(ngx_http_agent_print_t *print, ngx_str_t *field)
{
    u_char      size[8];
    uint64_t    n;
    ngx_uint_t  i;

    n = field->data ? field->len : (uint64_t) -1;

    for (i = 0; i < 8; i++) {
        size[i] = (u_char) (n >> (56 - 8 * i));
    }

    ngx_http_agent_print_piece(print, size, 8);

    if (field->data) {
        ngx_http_agent_print_piece(print, field->data, field->len);
    }
}


void
ngx_http_agent_print_piece(ngx_http_agent_print_t *print, const u_char *p,
    size_t n)
{
    if (EVP_DigestUpdate(print->md, p, n) != 1) {
        print->failed = 1;
    }
}


ngx_int_t
ngx_http_agent_print_done(ngx_http_agent_print_t *print, ngx_str_t *text)
{
    u_char        hash[EVP_MAX_MD_SIZE];
    unsigned int  len;

    if (print->failed || EVP_DigestFinal_ex(print->md, hash, &len) != 1) {
        return NGX_ERROR;
    }

    text->data = ngx_pnalloc(print->pool, 2 * len);
    if (text->data == NULL) {
        return NGX_ERROR;
    }

    text->len = ngx_hex_dump(text->data, hash, len) - text->data;

    return NGX_OK;
}
