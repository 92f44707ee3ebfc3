
/*
 * agent_usage: the ledger's lines as CSV.
 */

#ifndef _NGX_HTTP_AGENT_USAGE_H_INCLUDED_
#define _NGX_HTTP_AGENT_USAGE_H_INCLUDED_


#include "ngx_agent.h"


/*
 * A header line and one for each ngx_agent_usage_t of the list, into pool.
 * NGX_OK, or NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_agent_usage_csv(ngx_pool_t *pool, ngx_array_t *list,
    ngx_str_t *text);


#endif /* _NGX_HTTP_AGENT_USAGE_H_INCLUDED_ */
