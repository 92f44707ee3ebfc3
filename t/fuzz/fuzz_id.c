
/* ids: what parses prints back the same, but for the case of its letters */

#include "stub.h"
#include "ngx_agent_id.h"


int
LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    u_char         *copy, text[NGX_AGENT_ID_LEN];
    ngx_str_t       s;
    ngx_agent_id_t  id;

    copy = malloc(n);
    memcpy(copy, p, n);
    s.data = copy;
    s.len = n;

    if (ngx_agent_id_parse(&s, &id) == NGX_OK
        && (n != NGX_AGENT_ID_LEN
            || ngx_agent_id_print(text, &id) != text + NGX_AGENT_ID_LEN
            || strncasecmp((char *) text, (char *) copy, n) != 0))
    {
        abort();
    }

    free(copy);

    return 0;
}
