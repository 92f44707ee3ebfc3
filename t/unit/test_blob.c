
/* blobs on a disk: what is left behind when this or that happens */

#include "stub.h"
#include "ngx_agent_blob.h"
#include "ngx_agent_id.h"

#include <sys/stat.h>
#include <sys/time.h>


static char         root[64];
static ngx_uint_t   handled;
static ngx_int_t    handled_rc;


static void
handler(ngx_agent_blob_t *b)
{
    handled++;
    handled_rc = b->rc;
}


/* files in root and below */

static int
files(const char *dir)
{
    int             n;
    char            path[512];
    DIR            *d;
    struct dirent  *de;

    d = opendir(dir);

    for (n = 0; (de = readdir(d)) != NULL; ) {

        if (de->d_name[0] == '.') {
            continue;
        }

        snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
        n += (de->d_type == DT_DIR) ? files(path) : 1;
    }

    closedir(d);

    return n;
}


static void
start(ngx_agent_blob_t *b, ngx_pool_t *pool)
{
    memset(b, 0, sizeof(*b));
    b->pool = pool;
    b->log = &stub_log;
    b->handler = handler;
    ngx_agent_id_create(&b->id);
    handled = 0;
}


static void
init(ngx_uint_t threads)
{
    ngx_str_t    s;
    ngx_cycle_t  cycle;

    memset(&cycle, 0, sizeof(cycle));
    cycle.log = &stub_log;
    s.data = (u_char *) root;
    s.len = strlen(root);

    /* any pointer is a pool to the stub */
    ok(ngx_agent_blob_init(&cycle, &s, threads ? root : NULL) == NGX_OK,
       "init, %s", threads ? "threads" : "no threads");
}


static void
test_commit(ngx_uint_t threads)
{
    struct stat        st;
    ngx_str_t          path, content;
    ngx_pool_t        *pool;
    ngx_agent_blob_t   b;
    ngx_thread_task_t *task;

    init(threads);

    pool = stub_pool();
    start(&b, pool);

    ok(ngx_agent_blob_create(&b) == NGX_OK && files(root) == 1, "create");
    ok(ngx_agent_blob_write(&b, (u_char *) "hello ", 6) == NGX_OK
       && ngx_agent_blob_write(&b, (u_char *) "world", 5) == NGX_OK
       && b.size == 11, "write");
    ok(ngx_agent_blob_load(pool, &stub_log, &b.id, 100, &content)
       == NGX_DECLINED, "not there before the commit");
    ok(ngx_agent_blob_commit(&b) == NGX_AGAIN && handled == 0,
       "commit: not from inside the call");

    if (threads) {
        ok(stub_timers == 1, "a timer keeps the worker");
        task = stub_thread_take();
        stub_thread_work(task);
        ok(handled == 0, "not from the thread");
        stub_thread_back(task);

    } else {
        stub_run_posted();
    }

    ok(handled == 1 && handled_rc == NGX_OK && stub_timers == 0, "handled");

    ngx_agent_blob_path(pool, &b.id, &path);
    ok(stat((char *) path.data, &st) == 0 && (st.st_mode & 0777) == 0600
       && st.st_size == 11 && files(root) == 1, "in place, mode 0600");

    ok(ngx_agent_blob_load(pool, &stub_log, &b.id, 11, &content) == NGX_OK
       && same(content, "hello world"), "load");
    ok(ngx_agent_blob_load(pool, &stub_log, &b.id, 10, &content)
       == NGX_DECLINED, "load: too large");

    ngx_agent_blob_abort(&b);
    ngx_destroy_pool(pool);
    ok(files(root) == 1, "neither abort nor the pool's end removes it");

    ngx_agent_blob_delete(&b.id, &stub_log);
    ngx_agent_blob_delete(&b.id, &stub_log);
    ok(files(root) == 0, "delete, twice");
}


static void
test_leave(void)
{
    ngx_uint_t          i, before;
    ngx_str_t           content;
    ngx_pool_t         *pool;
    ngx_agent_blob_t    b;
    ngx_thread_task_t  *task;

    pool = stub_pool();
    start(&b, pool);
    ngx_agent_blob_abort(&b);
    ok(1, "abort before create");

    ngx_agent_blob_create(&b);
    ngx_agent_blob_write(&b, (u_char *) "x", 1);
    ngx_agent_blob_abort(&b);
    ngx_agent_blob_abort(&b);
    ok(files(root) == 0, "abort, twice");

    ngx_agent_blob_create(&b);
    ngx_destroy_pool(pool);
    ok(files(root) == 0, "the pool's end removes the temporary file");

    /* who leaves while the thread is at work: before and after its work */

    for (i = 0; i < 4; i++) {
        pool = stub_pool();
        start(&b, pool);
        ngx_agent_blob_create(&b);
        ngx_agent_blob_commit(&b);
        task = stub_thread_take();

        if (i & 1) {
            stub_thread_work(task);
        }

        if (i & 2) {
            ngx_agent_blob_abort(&b);
        }

        ngx_destroy_pool(pool);
        memset(&b, 0xee, sizeof(b));

        if (!(i & 1)) {
            stub_thread_work(task);
        }

        stub_thread_back(task);
        ok(handled == 0 && files(root) == 0 && stub_timers == 0,
           "left during a commit, %d", (int) i);
    }

    /* the thread pool's queue is full */

    pool = stub_pool();
    start(&b, pool);
    ngx_agent_blob_create(&b);
    stub_thread_full = 1;
    ok(ngx_agent_blob_commit(&b) == NGX_ERROR && files(root) == 0
       && stub_timers == 0, "no thread to be had: nothing left");
    stub_thread_full = 0;

    /* no memory, at each place */

    for (i = 1; i < 4; i++) {
        start(&b, pool);
        stub_fail = i;

        if (ngx_agent_blob_create(&b) == NGX_OK) {
            ok(i == 3 && ngx_agent_blob_commit(&b) == NGX_ERROR,
               "commit: no memory");
        }

        stub_fail = 0;
        ngx_agent_blob_abort(&b);
    }
    ok(files(root) == 0 && handled == 0, "no memory: nothing left");

    /* the name is taken */

    start(&b, pool);
    ngx_agent_blob_create(&b);
    {
        ngx_agent_blob_t  twin;

        start(&twin, pool);
        twin.id = b.id;
        before = stub_logged;
        ok(ngx_agent_blob_create(&twin) == NGX_ERROR
           && stub_logged == before + 1 && stub_level == NGX_LOG_ERR,
           "never over another's file");
        ngx_agent_blob_abort(&twin);
    }

    /* the rename fails: the temporary file was taken away */

    unlink((char *) b.temp.data);
    before = stub_logged;
    ngx_agent_blob_commit(&b);
    task = stub_thread_take();
    stub_thread_work(task);
    stub_thread_back(task);
    ok(handled == 1 && handled_rc == NGX_ERROR && stub_logged == before + 1
       && stub_level == NGX_LOG_ERR, "a commit that fails is an error");

    /* an empty blob */

    start(&b, pool);
    ngx_agent_blob_create(&b);
    ngx_agent_blob_commit(&b);
    task = stub_thread_take();
    stub_thread_work(task);
    stub_thread_back(task);
    ok(ngx_agent_blob_load(pool, &stub_log, &b.id, 0, &content) == NGX_OK
       && content.len == 0 && content.data, "an empty blob");
    ngx_agent_blob_delete(&b.id, &stub_log);

    /* a full disk */

    start(&b, pool);
    ngx_agent_blob_create(&b);
    close(b.fd);
    b.fd = open("/dev/full", O_WRONLY);
    before = stub_logged;
    ok(ngx_agent_blob_write(&b, (u_char *) "x", 1) == NGX_ERROR
       && stub_logged == before + 1 && b.size == 0, "a full disk");

    ngx_destroy_pool(pool);
    ok(files(root) == 0, "nothing left");
}


static void
touch(const char *name, long age)
{
    int             fd;
    char            path[200];
    struct timeval  tv[2];

    snprintf(path, sizeof(path), "%s/tmp/%s", root, name);
    fd = open(path, O_CREAT|O_WRONLY, 0600);
    memset(tv, 0, sizeof(tv));
    tv[0].tv_sec = tv[1].tv_sec = time(NULL) - age;

    if (fd == -1 || futimes(fd, tv) == -1) {
        ok(0, "touch");
    }

    close(fd);
}


static void
test_sweep(void)
{
    touch("01930000-0000-7000-8000-000000000001", 90000);
    touch("01930000-0000-7000-8000-000000000002", 3600);
    touch("notes.txt", 90000);

    ngx_worker = 1;
    init(0);
    ok(files(root) == 3, "worker 1 sweeps nothing");

    ngx_worker = 0;
    init(0);
    ok(files(root) == 2, "worker 0 sweeps what is old and ours");
}


int
main(void)
{
    char  cmd[100];

    strcpy(root, "/tmp/agent-blob-XXXXXX");
    if (mkdtemp(root) == NULL) {
        return 1;
    }
    strcat(root, "/");

    test_commit(0);
    test_commit(1);
    test_leave();
    test_sweep();

    ok(stub_used == 0, "nothing is left");

    snprintf(cmd, sizeof(cmd), "rm -rf %s", root);
    ok(system(cmd) == 0, "clean");

    return done_testing();
}
