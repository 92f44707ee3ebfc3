
/* ids: form, order, parsing */

#include "stub.h"
#include "ngx_agent_id.h"

#include <sys/wait.h>


static void
test_create(void)
{
    int              i, grows, form;
    u_char           text[NGX_AGENT_ID_LEN + 1];
    uint64_t         msec;
    ngx_agent_id_t   a, b;
    struct timespec  ts;

    grows = 1;
    form = 1;

    ngx_agent_id_create(&a);

    msec = 0;
    for (i = 0; i < 6; i++) {
        msec = (msec << 8) | a.bytes[i];
    }

    clock_gettime(CLOCK_REALTIME, &ts);
    ok(labs((long) (msec / 1000) - (long) ts.tv_sec) <= 2,
       "the first 48 bits are milliseconds since 1970");

    for (i = 0; i < 200000; i++) {
        ngx_agent_id_create(&b);

        if (memcmp(&a, &b, 16) >= 0) {
            grows = 0;
        }

        if ((b.bytes[6] & 0xf0) != 0x70 || (b.bytes[8] & 0xc0) != 0x80) {
            form = 0;
        }

        a = b;
    }

    ok(grows, "200000 ids in a row only grow");
    ok(form, "version 7, variant 10 in all");

    *ngx_agent_id_print(text, &b) = '\0';
    ok(strlen((char *) text) == 36 && text[14] == '7'
       && strspn((char *) text, "0123456789abcdef-") == 36, "print: %s", text);
}


static void
test_fork(void)
{
    int             fds[2], status;
    pid_t           pid;
    ngx_agent_id_t  mine, child;

    ngx_agent_id_create(&mine);

    if (pipe(fds) == -1) {
        ok(0, "pipe");
        return;
    }

    pid = fork();

    if (pid == 0) {
        ngx_pid = getpid();
        ngx_agent_id_create(&child);
        _exit(write(fds[1], &child, 16) != 16);
    }

    ngx_agent_id_create(&mine);
    status = (read(fds[0], &child, 16) != 16);

    ok(!status && memcmp(&mine.bytes[8], &child.bytes[8], 8) != 0,
       "a child does not use its parent's random bytes");

    waitpid(pid, NULL, 0);
    close(fds[0]);
    close(fds[1]);
}


static void
test_parse(void)
{
    size_t          i, n;
    u_char          text[NGX_AGENT_ID_LEN], back[NGX_AGENT_ID_LEN];
    ngx_str_t       s;
    ngx_agent_id_t  id;

    static const char  good[] = "0193A1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    static const char  odd[] = "g-/:@`\x80\xff \t\r\n+.x";

    memcpy(text, good, 36);
    s.data = text;
    s.len = 36;

    ok(ngx_agent_id_parse(&s, &id) == NGX_OK, "parse: either case");

    ngx_agent_id_print(back, &id);
    ok(strncasecmp((char *) back, good, 36) == 0 && back[4] == 'a',
       "parse and print: the same, in lower case");

    for (i = 0, n = 0; i < 36; i++) {
        s.len = i;
        n += ngx_agent_id_parse(&s, &id) == NGX_DECLINED;
    }
    s.len = 37;
    ok(n == 36 && ngx_agent_id_parse(&s, &id) == NGX_DECLINED,
       "parse: no other length");

    s.len = 36;
    for (i = 0, n = 0; i < 36 * (sizeof(odd) - 1); i++) {

        memcpy(text, good, 36);
        text[i % 36] = odd[i / 36];

        if (text[i % 36] == (u_char) good[i % 36]) {
            text[i % 36] = '_';
        }

        n += ngx_agent_id_parse(&s, &id) == NGX_DECLINED;
    }
    ok(n == i, "parse: no odd byte at any place");
}


int
main(void)
{
    test_create();
    test_fork();
    test_parse();

    return done_testing();
}
