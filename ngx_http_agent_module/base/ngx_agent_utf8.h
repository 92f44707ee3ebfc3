
/*
 * UTF-8 (RFC 3629): no overlong forms, no surrogates, at most U+10FFFF.
 * Bytes only.
 */

#ifndef _NGX_AGENT_UTF8_H_INCLUDED_
#define _NGX_AGENT_UTF8_H_INCLUDED_


#include "ngx_agent.h"


/* U+FFFD, what stands for bytes that are no character */
#define NGX_AGENT_UTF8_BAD      "\xef\xbf\xbd"
#define NGX_AGENT_UTF8_BAD_LEN  3


/*
 * Looks at the one sequence at p; p < end.  NGX_OK: *n bytes are a character;
 * NGX_AGAIN: all *n bytes up to end are good, but more must follow;
 * NGX_DECLINED: *n bytes are none, and one U+FFFD may stand for them.
 */
ngx_int_t ngx_agent_utf8_next(const u_char *p, const u_char *end, size_t *n);

/* 1 when the bytes are UTF-8 as above and hold no NUL */
ngx_uint_t ngx_agent_utf8_valid(const u_char *p, size_t n);

/* Writes a code point below 0x110000 that is no surrogate; returns the end. */
u_char *ngx_agent_utf8_write(u_char *p, uint32_t code);


#endif /* _NGX_AGENT_UTF8_H_INCLUDED_ */
