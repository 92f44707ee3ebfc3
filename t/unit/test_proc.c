
/* processes: births, corpses, odd names, the name of a host */

#include "stub.h"
#include "ngx_agent_proc.h"
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>


static pid_t
child(const char *name)
{
    int    pipes[2];
    char   c;
    pid_t  pid;

    if (pipe(pipes) != 0) {
        exit(2);
    }

    pid = fork();

    if (pid == 0) {
        if (name) {
            prctl(PR_SET_NAME, name);
        }

        if (write(pipes[1], "x", 1) != 1) {
            _exit(2);
        }

        for ( ;; ) {
            pause();
        }
    }

    /* it has its name now */
    if (read(pipes[0], &c, 1) != 1) {
        exit(2);
    }

    close(pipes[0]);
    close(pipes[1]);

    return pid;
}


static void
end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}


static void
test_born(void)
{
    size_t       i;
    pid_t        pid;
    int64_t      born;
    siginfo_t    info;

    static const char  *names[] = { "plain", "a) Z 1 2 3 (", ") S", "7 (x)" };

    born = ngx_agent_proc_born(getpid());
    ok(born > 0, "this process was born: %lld", (long long) born);
    ok(ngx_agent_proc_born(getpid()) == born, "and always at the same time");

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        pid = child(names[i]);
        ok(ngx_agent_proc_born(pid) >= born, "one named \"%s\" came later",
           names[i]);
        end(pid);
    }

    pid = child(NULL);
    born = ngx_agent_proc_born(pid);

    kill(pid, SIGSTOP);
    waitpid(pid, NULL, WUNTRACED);
    ok(ngx_agent_proc_born(pid) == born, "a stopped one is there");
    ok(!ngx_agent_proc_gone(pid, born), "and not gone");

    kill(pid, SIGKILL);
    waitid(P_PID, pid, &info, WEXITED|WNOWAIT);
    ok(ngx_agent_proc_born(pid) == -1, "a corpse is not");
    ok(ngx_agent_proc_gone(pid, born), "and is gone");

    waitpid(pid, NULL, 0);
    ok(ngx_agent_proc_born(pid) == -1, "nor is one that was buried");
    ok(ngx_agent_proc_gone(pid, born), "which is gone, too");
    ok(ngx_agent_proc_gone(pid, 0), "whenever it was born");

    ok(ngx_agent_proc_born(0) == -1 && ngx_agent_proc_born(-1) == -1,
       "no pid, no process");
}


static void
test_gone(void)
{
    int64_t  born;

    born = ngx_agent_proc_born(getpid());

    ok(!ngx_agent_proc_gone(getpid(), born), "the same one lives");
    ok(ngx_agent_proc_gone(getpid(), born - 1), "another had the same pid");
    ok(!ngx_agent_proc_gone(getpid(), 0), "a birth unknown is no proof");

    /* root's, and always there */
    ok(ngx_agent_proc_born(1) >= 0, "the first process");
}


static void
test_host(void)
{
    u_char     a[NGX_AGENT_PROC_HOST], b[NGX_AGENT_PROC_HOST], name[300];
    size_t     i;
    ngx_str_t  one, two, long_one;

    ngx_agent_proc_host(&S("web1"), a, &one);
    ngx_agent_proc_host(&S("web1"), b, &two);

    ok(one.len == 21 && memcmp(one.data, "web1#", 5) == 0,
       "a host: %.*s", (int) one.len, one.data);
    ok(one.len == two.len && memcmp(one.data, two.data, one.len) == 0,
       "the same twice");

    ngx_agent_proc_host(&S("web2"), b, &two);
    ok(memcmp(one.data + 4, two.data + 4, 17) == 0, "the hash is the boot's");

    memset(name, 'a', sizeof(name));
    name[1] = ' ';
    name[2] = 0x80;
    long_one.data = name;
    long_one.len = sizeof(name);

    ngx_agent_proc_host(&long_one, a, &one);
    ok(one.len == 64 + 17 && memcmp(one.data, "a??aa", 5) == 0,
       "a long name is cut, and clean");

    for (i = 0; i < one.len; i++) {
        if (one.data[i] <= 0x20 || one.data[i] >= 0x7f) {
            break;
        }
    }

    ok(i == one.len, "printable");
}


/* in a new pid namespace /proc is still the old one's, as in some containers */

static int
foreign(void)
{
    int    status;
    pid_t  pid;

    if (unshare(CLONE_NEWPID) != 0) {
        /* root's right */
        return 0;
    }

    pid = fork();

    if (pid == 0) {
        _exit(getpid() == 1 && ngx_agent_proc_born(1) == 0
              && !ngx_agent_proc_gone(1, 77) ? 0 : 1);
    }

    waitpid(pid, &status, 0);

    return !WIFEXITED(status) || WEXITSTATUS(status);
}


static void
test_foreign(void)
{
    int    status;
    pid_t  pid;

    fflush(stdout);
    pid = fork();

    if (pid == 0) {
        _exit(foreign());
    }

    waitpid(pid, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 0,
       "a foreign /proc is not believed");
}


int
main(void)
{
    test_born();
    test_gone();
    test_host();
    test_foreign();

    return done_testing();
}
