
/*
 * Where Postgres is: a conninfo string taken apart at start.  libpq would
 * look names up when it connects, and block the worker while it does.
 */

#include "ngx_agent_pg_conn.h"


static char *ngx_agent_pg_target_hosts(ngx_pool_t *pool,
    ngx_agent_pg_target_t *target, char *hosts, char *addrs, char *ports);
static char *ngx_agent_pg_target_host(ngx_pool_t *pool,
    ngx_agent_pg_target_t *target, char *host, char *addr, char *port);
static ngx_int_t ngx_agent_pg_target_push(ngx_pool_t *pool,
    ngx_agent_pg_target_t *target, char *host, const char *addr, char *port);
static char *ngx_agent_pg_dup(ngx_pool_t *pool, const char *s, size_t len);
static char *ngx_agent_pg_split(ngx_pool_t *pool, char **list);
static char *ngx_agent_pg_target_list(ngx_agent_pg_target_t *target,
    ngx_uint_t rotate, ngx_pool_t *pool, size_t offset);


static char  ngx_agent_pg_nomem[] = "no memory";


char *
ngx_agent_pg_target(ngx_pool_t *pool, ngx_str_t *conninfo,
    ngx_agent_pg_target_t *target)
{
    char              *text, *err, *hosts, *addrs, *ports;
    ngx_uint_t         n;
    PQconninfoOption  *opts, *o;

    text = ngx_agent_pg_dup(pool, (char *) conninfo->data, conninfo->len);
    if (text == NULL) {
        return ngx_agent_pg_nomem;
    }

    err = NULL;
    opts = PQconninfoParse(text, &err);

    if (opts == NULL) {
        /* libpq's words may quote the string, and so a password */
        PQfreemem(err);
        return "it is no valid connection string of keyword=value pairs, "
               "nor a postgresql:// URI";
    }

    for (n = 0, o = opts; o->keyword; o++) {
        n++;
    }

    target->keywords = ngx_pcalloc(pool, (n + 8) * sizeof(char *));
    target->values = ngx_pcalloc(pool, (n + 8) * sizeof(char *));

    if (target->keywords == NULL || target->values == NULL
        || ngx_array_init(&target->hosts, pool, 2,
                          sizeof(ngx_agent_pg_host_t))
           != NGX_OK)
    {
        PQconninfoFree(opts);
        return ngx_agent_pg_nomem;
    }

    hosts = addrs = ports = "";
    err = NULL;

    for (n = 0, o = opts; o->keyword; o++) {
        if (o->val == NULL) {
            continue;
        }

        text = ngx_agent_pg_dup(pool, o->val, ngx_strlen(o->val));
        if (text == NULL) {
            err = ngx_agent_pg_nomem;
            break;
        }

        if (ngx_strcmp(o->keyword, "host") == 0) {
            hosts = text;

        } else if (ngx_strcmp(o->keyword, "hostaddr") == 0) {
            addrs = text;

        } else if (ngx_strcmp(o->keyword, "port") == 0) {
            ports = text;

        } else {
            target->keywords[n] = ngx_agent_pg_dup(pool, o->keyword,
                                                   ngx_strlen(o->keyword));
            if (target->keywords[n] == NULL) {
                err = ngx_agent_pg_nomem;
                break;
            }

            target->values[n++] = text;
        }
    }

    PQconninfoFree(opts);

    if (err) {
        return err;
    }

    return ngx_agent_pg_target_hosts(pool, target, hosts, addrs, ports);
}


/* the lists run side by side; one port serves all hosts, as in libpq */

static char *
ngx_agent_pg_target_hosts(ngx_pool_t *pool, ngx_agent_pg_target_t *target,
    char *hosts, char *addrs, char *ports)
{
    char  *host, *addr, *port, *err, *one;

    one = ngx_strchr(ports, ',') ? NULL : ports;

    do {
        host = ngx_agent_pg_split(pool, &hosts);
        addr = ngx_agent_pg_split(pool, &addrs);
        port = one ? one : ngx_agent_pg_split(pool, &ports);

        if (host == NULL || addr == NULL || port == NULL) {
            return ngx_agent_pg_nomem;
        }

        err = ngx_agent_pg_target_host(pool, target, host, addr, port);
        if (err) {
            return err;
        }

    } while (*hosts || *addrs);

    return NULL;
}


static char *
ngx_agent_pg_target_host(ngx_pool_t *pool, ngx_agent_pg_target_t *target,
    char *host, char *addr, char *port)
{
    ngx_int_t    n;
    ngx_url_t    u;
    ngx_uint_t   i;
    char        *text;

    if (*port) {
        n = ngx_atoi((u_char *) port, ngx_strlen(port));
        if (n < 1 || n > 65535) {
            return "its port is not a number from 1 to 65535";
        }
    }

    if (*addr || *host == '\0' || *host == '/' || *host == '@') {
        return ngx_agent_pg_target_push(pool, target, host, addr, port)
               == NGX_OK ? NULL : ngx_agent_pg_nomem;
    }

    ngx_memzero(&u, sizeof(ngx_url_t));
    u.host.data = (u_char *) host;
    u.host.len = ngx_strlen(host);
    u.default_port = 5432;

    if (ngx_inet_resolve_host(pool, &u) != NGX_OK) {
        text = ngx_pnalloc(pool, 64 + u.host.len);
        if (text == NULL) {
            return ngx_agent_pg_nomem;
        }

        (void) ngx_sprintf((u_char *) text, "host \"%s\" not found%Z", host);
        return text;
    }

    for (i = 0; i < u.naddrs; i++) {
        text = ngx_pcalloc(pool, NGX_SOCKADDR_STRLEN + 1);
        if (text == NULL) {
            return ngx_agent_pg_nomem;
        }

        (void) ngx_sock_ntop(u.addrs[i].sockaddr, u.addrs[i].socklen,
                             (u_char *) text, NGX_SOCKADDR_STRLEN, 0);

        /* with no port nginx writes an IPv6 address bare, as libpq wants */

        if (ngx_agent_pg_target_push(pool, target, host, text, port)
            != NGX_OK)
        {
            return ngx_agent_pg_nomem;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_agent_pg_target_push(ngx_pool_t *pool, ngx_agent_pg_target_t *target,
    char *host, const char *addr, char *port)
{
    ngx_agent_pg_host_t  *h;

    h = ngx_array_push(&target->hosts);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->host = host;
    h->hostaddr = addr;
    h->port = port;

    return NGX_OK;
}


static char *
ngx_agent_pg_dup(ngx_pool_t *pool, const char *s, size_t len)
{
    char  *p;

    p = ngx_pnalloc(pool, len + 1);
    if (p == NULL) {
        return NULL;
    }

    ngx_memcpy(p, s, len);
    p[len] = '\0';

    return p;
}


/* takes the first item off a list with commas; an empty list has "" */

static char *
ngx_agent_pg_split(ngx_pool_t *pool, char **list)
{
    char   *comma, *item;
    size_t  len;

    comma = ngx_strchr(*list, ',');
    len = comma ? (size_t) (comma - *list) : ngx_strlen(*list);

    item = ngx_agent_pg_dup(pool, *list, len);
    *list += comma ? len + 1 : len;

    return item;
}


/*
 * The hosts are given in the order of this attempt, with addresses, so that
 * nothing is looked up.
 */

PGconn *
ngx_agent_pg_connect(ngx_agent_pg_target_t *target, ngx_uint_t rotate,
    ngx_log_t *log)
{
    char        *hosts, *addrs, *ports;
    PGconn      *pg;
    ngx_uint_t   n;
    ngx_pool_t  *pool;
    const char  *keywords[64], *values[64];

    pool = ngx_create_pool(1024, log);
    if (pool == NULL) {
        return NULL;
    }

    hosts = ngx_agent_pg_target_list(target, rotate, pool,
                                     offsetof(ngx_agent_pg_host_t, host));
    addrs = ngx_agent_pg_target_list(target, rotate, pool,
                                     offsetof(ngx_agent_pg_host_t, hostaddr));
    ports = ngx_agent_pg_target_list(target, rotate, pool,
                                     offsetof(ngx_agent_pg_host_t, port));

    if (hosts == NULL || addrs == NULL || ports == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    keywords[0] = "application_name";
    values[0] = "nginx-agent";
    keywords[1] = "host";
    values[1] = hosts;
    keywords[2] = "hostaddr";
    values[2] = addrs;
    keywords[3] = "port";
    values[3] = ports;

    for (n = 0; n < 58 && target->keywords[n]; n++) {
        keywords[n + 4] = target->keywords[n];
        values[n + 4] = target->values[n];
    }

    keywords[n + 4] = "client_encoding";
    values[n + 4] = "UTF8";
    keywords[n + 5] = NULL;
    values[n + 5] = NULL;

    pg = PQconnectStartParams(keywords, values, 0);

    ngx_destroy_pool(pool);

    return pg;
}


static char *
ngx_agent_pg_target_list(ngx_agent_pg_target_t *target, ngx_uint_t rotate,
    ngx_pool_t *pool, size_t offset)
{
    char                 *p, *text;
    size_t                len;
    ngx_uint_t            i, n;
    ngx_agent_pg_host_t  *h;

    h = target->hosts.elts;
    n = target->hosts.nelts;

    for (len = 0, i = 0; i < n; i++) {
        len += ngx_strlen(*(char **) ((char *) &h[i] + offset)) + 1;
    }

    text = ngx_pnalloc(pool, len);
    if (text == NULL) {
        return NULL;
    }

    for (p = text, i = 0; i < n; i++) {
        p = (char *) ngx_sprintf((u_char *) p, "%s%s", i ? "," : "",
                          *(char **) ((char *) &h[(i + rotate) % n]
                                      + offset));
    }

    *p = '\0';

    return text;
}
