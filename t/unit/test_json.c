
/* JSON: strict and incremental reading, slices, writing */

#include "stub.h"
#include "ngx_agent_json.h"
#include "ngx_agent_id.h"


static char        out[65536];
static size_t      out_len;
static ngx_int_t   answer;
static size_t      biggest;


static ngx_int_t
value(void *data, ngx_agent_json_value_t *v)
{
    static const char  type[] = "nb#so[";

    biggest = ngx_max(biggest, v->text.len);

    if (out_len + v->path.len + v->text.len + 8 < sizeof(out)) {
        out_len += sprintf(out + out_len, "%c", type[v->type]);
        memcpy(out + out_len, v->path.data, v->path.len);
        out_len += v->path.len;
        out[out_len++] = '=';
        memcpy(out + out_len, v->text.data, v->text.len);
        out_len += v->text.len;
        out[out_len++] = ' ';
        out[out_len] = '\0';
    }

    return answer;
}


static const char  *why;


static ngx_int_t
strict(ngx_str_t doc)
{
    u_char     *copy;
    ngx_int_t   rc;

    out_len = 0;
    out[0] = '\0';
    copy = malloc(doc.len);
    memcpy(copy, doc.data, doc.len);
    doc.data = copy;
    rc = ngx_agent_json_read(&doc, value, NULL, &why);
    free(copy);

    return rc;
}


static ngx_int_t
split(ngx_str_t doc, size_t first, size_t second)
{
    size_t                    i, len;
    u_char                   *copy;
    ngx_int_t                 rc;
    ngx_agent_json_reader_t  *r;

    out_len = 0;
    out[0] = '\0';
    rc = NGX_OK;
    r = ngx_agent_json_reader_create(value, NULL);

    for (i = 0; i < doc.len && rc == NGX_OK; i += len) {

        len = (i == 0) ? first : (i == first) ? second : doc.len;
        len = ngx_min(len, doc.len - i);
        len = len ? len : 1;

        copy = malloc(len);
        memcpy(copy, doc.data + i, len);
        rc = ngx_agent_json_reader_feed(r, copy, len);
        free(copy);
    }

    if (rc == NGX_OK) {
        rc = ngx_agent_json_reader_finish(r);

    } else if (ngx_agent_json_reader_feed(r, (u_char *) " ", 1) != rc
               || ngx_agent_json_reader_finish(r) != rc)
    {
        rc = -100;
    }

    ngx_agent_json_reader_free(r);

    return rc;
}


static void
splits(ngx_str_t doc, const char *expected, ngx_int_t rc)
{
    int     bad;
    size_t  i, j;

    for (i = 0, bad = 0; i <= doc.len; i++) {
        for (j = 0; i + j <= doc.len; j++) {
            bad += split(doc, i, j) != rc || strcmp(out, expected) != 0;
        }
    }

    split(doc, doc.len, 0);
    ok(bad == 0, "every split in three: %s", out);
}


static void
good(ngx_str_t doc, const char *expected)
{
    ok(strict(doc) == NGX_OK && !strcmp(out, expected) && why == NULL,
       "strict: %s", out);
    splits(doc, expected, NGX_OK);
}


static void
test_good(void)
{
    good(S("{}"), "o= ");
    good(S(" [ ] \r\n\t"), "[= ");
    good(S("null"), "n= ");
    good(S("-0.5e+10"), "#=-0.5e+10 ");
    good(S("true"), "b=true ");
    good(S("\"a\\\"b\\\\\\/\\b\\f\\n\\r\\t\""), "s=a\"b\\/\b\f\n\r\t ");
    good(S("\"\\u00e9\\u20ac\\ud83d\\ude00\""),
         "s=\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 ");
    good(S("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\""),
         "s=\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f ");
    good(S("123456789012345678901234567890.5"),
         "#=123456789012345678901234567890.5 ");
    good(S("{\"a\":{\"b\":[1,{\"c\":false},[\"x\"]]},\"d\":null}"),
         "o= oa= [a.b= #a.b.0=1 oa.b.1= ba.b.1.c=false [a.b.2= s"
         "a.b.2.0=x nd= ");
    good(S("{\"a.b\":1,\"\":{\"a\":2}}"), "o= #a\x01" "b=1 o\x01= #\x01.a=2 ");
    good(S("[[],{},[[]],1]"), "[= [0= o1= [2= [2.0= #3=1 ");
    good(S("{\"a\":1,\"a\":2}"), "o= #a=1 #a=2 ");
}


static void
bad(ngx_str_t doc, const char *reason)
{
    ok(strict(doc) == NGX_DECLINED && why && !strcmp(why, reason),
       "refused: %s: %.*s", why ? why : "-", (int) doc.len, doc.data);
}


static void
test_bad(void)
{
    size_t  i;

    static ngx_str_t  docs[] = {
        ngx_string(""), ngx_string(" "), ngx_string("{"), ngx_string("[1,]"),
        ngx_string("{\"a\"}"), ngx_string("{\"a\":}"), ngx_string("{a:1}"),
        ngx_string("{\"a\":1,}"), ngx_string("[1 2]"), ngx_string("{} {}"),
        ngx_string("{}x"), ngx_string("nul"), ngx_string("True"),
        ngx_string("NaN"), ngx_string("01"), ngx_string("1."),
        ngx_string(".5"), ngx_string("+1"), ngx_string("1e"),
        ngx_string("-"), ngx_string("0x10"), ngx_string("'a'"),
        ngx_string("\"a"), ngx_string("\"\\x\""), ngx_string("\"\\u12g4\""),
        ngx_string("\"\\u12\""), ngx_string("\"a\nb\""), ngx_string("[1}"),
        ngx_string("/**/1"), ngx_string("// x\n1"), ngx_string("]"),
        ngx_string("\xef\xbb\xbf{}"), ngx_string("\v1"), ngx_string("1\f"),
        ngx_string("{\"a\":1 \"b\":2}"), ngx_string("\"\t\""),
        ngx_string("[1,,2]"), ngx_string(","), ngx_string("\"\\\""),
        ngx_string("0\""), ngx_string("{} \"a"), ngx_string("1 tru"),
        ngx_string("{}-"), ngx_string("{}\\")
    };

    for (i = 0; i < sizeof(docs) / sizeof(docs[0]); i++) {
        bad(docs[i], "is not valid JSON");

        if (docs[i].len && !memchr(docs[i].data, '\v', docs[i].len)
            && !memchr(docs[i].data, '\f', docs[i].len))
        {
            ok(split(docs[i], 1, 1) == NGX_DECLINED, "also incremental");
        }
    }

    bad(S("\"a\0b\""), "has a NUL byte in it");
    bad(S("\"\xff\""), "is not valid UTF-8");
    bad(S("\"\xc0\x80\""), "is not valid UTF-8");
    bad(S("\"\xed\xa0\x80\""), "is not valid UTF-8");
    bad(S("{\"\xf4\x90\x80\x80\":1}"), "is not valid UTF-8");
    bad(S("\"\xe2\x82"), "is not valid UTF-8");
    bad(S("\"a\\u0000\""), "has the character U+0000 in a string");
    bad(S("{\"\\u0000\":1}"), "has the character U+0000 in a string");
    bad(S("\"\\ud800\""), "has half a surrogate pair in a string");
    bad(S("\"\\ud800x\""), "has half a surrogate pair in a string");
    bad(S("\"\\ud800\\u0041\""), "has half a surrogate pair in a string");
    bad(S("\"\\ud800\\ud800\\udc00\""),
        "has half a surrogate pair in a string");
    bad(S("\"\\udc00\""), "has half a surrogate pair in a string");
    bad(S("\"\\uDFFF\\uD800\""), "has half a surrogate pair in a string");
}


static void
test_lenient(void)
{
    splits(S("[\"a\\u0000b\",\"\\u0000\"]"), "[= s0=ab s1= ", NGX_OK);
    splits(S("[\"x\\ud800y\",\"\\udc00\\ud800\"]"),
           "[= s0=x\xef\xbf\xbdy s1=\xef\xbf\xbd\xef\xbf\xbd ", NGX_OK);
    splits(S("[\"\\ud800\\u0041\",\"\\ud800\\ud83d\\ude00\"]"),
           "[= s0=\xef\xbf\xbd" "A s1=\xef\xbf\xbd\xf0\x9f\x98\x80 ", NGX_OK);
    splits(S("[\"\xff" "a\xe2\x82\",\"\xc0\x80\"]"),
           "[= s0=\xef\xbf\xbd" "a\xef\xbf\xbd s1=\xef\xbf\xbd\xef\xbf\xbd ",
           NGX_OK);
    splits(S("{\"a\\u0000\\ud800\":1}"), "o= #a\xef\xbf\xbd=1 ", NGX_OK);
    splits(S("{\"a\":1"), "o= #a=1 ", NGX_DECLINED);
    splits(S("[1]x"), "[= #0=1 ", NGX_DECLINED);
    splits(S("\"open"), "", NGX_DECLINED);
    splits(S(""), "", NGX_DECLINED);
}


static void
test_depth(void)
{
    int        i;
    char       text[400];
    ngx_str_t  doc;

    for (i = 0; i < 65; i++) {
        text[i] = '[';
        text[64 + 64 - i] = ']';
    }
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    doc.data = (u_char *) text;
    doc.len = 128;
    ok(strict(doc) == NGX_OK, "64 levels");
    ok(split(doc, 60, 10) == NGX_OK, "64 levels, incremental");

    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    doc.len = 130;
    ok(strict(doc) == NGX_DECLINED
       && !strcmp(why, "nests deeper than 64 levels"), "65: %s", why);
    ok(split(doc, 60, 10) == NGX_DECLINED, "65 levels, incremental");

    for (i = 0; i < 65; i++) {
        memcpy(text + i * 5, "{\"a\":", 5);
    }
    doc.len = 325;
    ok(strict(doc) == NGX_DECLINED
       && !strcmp(why, "nests deeper than 64 levels"), "65 objects");

    /* long keys: the path is cut, and right again afterwards */

    memset(text, 'k', sizeof(text));
    memcpy(text, "{\"", 2);
    memcpy(text + 302, "\":[1],\"b\":2}", 12);
    doc.len = 314;
    ok(strict(doc) == NGX_OK && !strcmp(out + out_len - 5, "#b=2 "),
       "a path too long is cut");
}


static void
test_handler(void)
{
    ngx_str_t  raw;

    answer = NGX_ABORT;
    ok(strict(S("[1,2]")) == NGX_ABORT && !strcmp(out, "[= ") && why == NULL,
       "strict: the handler's code");
    splits(S("[1,2]"), "[= ", NGX_ABORT);
    answer = NGX_OK;

    ok(ngx_agent_json_read(&(ngx_str_t) ngx_null_string, NULL, NULL, &why)
       == NGX_DECLINED
       && ngx_agent_json_member(&(ngx_str_t) ngx_null_string, "a", &raw)
       == NGX_DECLINED && ngx_agent_utf8_valid(NULL, 0),
       "a null string is no document");

    ok(ngx_agent_json_read(&S("[1,{}]"), NULL, NULL, &why) == NGX_OK
       && ngx_agent_json_read(&S("[1,{]"), NULL, NULL, &why) == NGX_DECLINED,
       "no handler: a check only");
}


/* a long string in small pieces must not cost the square of its length */

static void
test_long(void)
{
    int                       i;
    clock_t                   start;
    ngx_int_t                 rc;
    ngx_agent_json_reader_t  *r;

    start = clock();
    r = ngx_agent_json_reader_create(value, NULL);
    rc = ngx_agent_json_reader_feed(r, (u_char *) "[\"", 2);

    for (i = 0; i < 1000000; i++) {
        rc |= ngx_agent_json_reader_feed(r, (u_char *) "x", 1);
    }

    rc |= ngx_agent_json_reader_feed(r, (u_char *) "\"]", 2);
    rc |= ngx_agent_json_reader_finish(r);
    ngx_agent_json_reader_free(r);

    ok(rc == NGX_OK && biggest == 1000000
       && clock() - start < 5 * CLOCKS_PER_SEC,
       "a megabyte, byte by byte");
}


static void
member(ngx_str_t doc, const char *key, const char *expected)
{
    ngx_int_t  rc;
    ngx_str_t  raw;

    rc = ngx_agent_json_member(&doc, key, &raw);

    ok(expected ? (rc == NGX_OK && raw.len == strlen(expected)
                   && !memcmp(raw.data, expected, raw.len))
                : rc == NGX_DECLINED,
       "member %s: %s", key, expected ? expected : "none");
}


static void
test_slices(void)
{
    u_char     *pos;
    char        text[200];
    ngx_str_t   raw, doc;

    member(S("{\"a\":1}"), "a", "1");
    member(S(" { \"a\" : { \"b\" : [ 1 , \"}\" ] } , \"b\" : null } "), "a",
           "{ \"b\" : [ 1 , \"}\" ] }");
    member(S(" { \"a\" : { \"b\" : [ 1 ] } , \"b\" : null } "), "b", "null");
    member(S("{\"a\":1,\"a\":\"2\"}"), "a", "\"2\"");
    member(S("{\"\\u0061\":1}"), "a", "1");
    member(S("{\"a\\/\\\"\\n\":-1.5}"), "a/\"\n", "-1.5");
    member(S("{\"\\ud83d\\ude00\":1}"), "\xf0\x9f\x98\x80", "1");
    member(S("{\"\xc3\xa9\":1}"), "\xc3\xa9", "1");
    member(S("{\"ab\":1}"), "a", NULL);
    member(S("{\"a\":1}"), "ab", NULL);
    member(S("{\"x\":{\"a\":1}}"), "a", NULL);
    member(S("{\"x\":\"a\",\"y\":\"\\\"a\\\":1\"}"), "a", NULL);
    member(S("{}"), "a", NULL);
    member(S("[1]"), "a", NULL);
    member(S("\"a\""), "a", NULL);
    member(S("{\"\":1}"), "", "1");

    /* never accepted before, found by the fuzzer: read past the key's end */
    member(S("{\"a\\\0\0\":1}"), "a", NULL);

    doc = S(" [ 1 , \"a,]\" , [2, 3] ,{\"b\":[]},true ] ");
    text[0] = '\0';

    for (pos = NULL; ngx_agent_json_element(&doc, &pos, &raw) == NGX_OK; ) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%.*s|",
                 (int) raw.len, raw.data);
    }

    ok(!strcmp(text, "1|\"a,]\"|[2, 3]|{\"b\":[]}|true|"), "elements: %s",
       text);
    ok(ngx_agent_json_element(&doc, &pos, &raw) == NGX_DONE, "still done");

    pos = NULL;
    ok(ngx_agent_json_element(&S(" [ ] "), &pos, &raw) == NGX_DONE,
       "no elements");
    pos = NULL;
    ok(ngx_agent_json_element(&S("{\"a\":1}"), &pos, &raw) == NGX_DONE,
       "no array");
}


static void
write_all(ngx_agent_json_t *j, ngx_pool_t *pool)
{
    ngx_str_t       null;
    ngx_agent_id_t  id;

    ngx_str_null(&null);
    memset(&id, 0xab, sizeof(id));

    ngx_agent_json_init(j, pool, 8);
    ngx_agent_json_object(j);
    ngx_agent_json_key(j, "s");
    ngx_agent_json_string(j, &S("a\"\\/\b\f\n\r\t\x01\x1f\x7f\0\xc3\xa9"));
    ngx_agent_json_key(j, "null");
    ngx_agent_json_string(j, &null);
    ngx_agent_json_key(j, "list");
    ngx_agent_json_array(j);
    ngx_agent_json_int(j, 0);
    ngx_agent_json_int(j, -7);
    ngx_agent_json_int(j, INT64_MAX);
    ngx_agent_json_int(j, INT64_MIN);
    ngx_agent_json_bool(j, 1);
    ngx_agent_json_bool(j, 0);
    ngx_agent_json_null(j);
    ngx_agent_json_cstring(j, "");
    ngx_agent_json_object(j);
    ngx_agent_json_object_end(j);
    ngx_agent_json_array(j);
    ngx_agent_json_array_end(j);
    ngx_agent_json_array_end(j);
    ngx_agent_json_key(j, "id");
    ngx_agent_json_id(j, &id);
    ngx_agent_json_key(j, "raw");
    ngx_agent_json_raw(j, &S("{\"x\": 1}"), "{}");
    ngx_agent_json_key(j, "none");
    ngx_agent_json_raw(j, &null, "{}");
    ngx_agent_json_object_end(j);
}


static void
test_write(void)
{
    ngx_str_t         text;
    ngx_uint_t        i, failed;
    ngx_pool_t       *pool;
    ngx_agent_json_t  j;

    pool = stub_pool();
    write_all(&j, pool);

    ok(ngx_agent_json_done(&j, &text) == NGX_OK
       && same(text, "{\"s\":\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f"
       "\\u0000\xc3\xa9\",\"null\":null,\"list\":[0,-7,9223372036854775807,"
       "-9223372036854775808,true,false,null,\"\",{},[]],\"id\":\"abababab-"
       "abab-abab-abab-abababababab\",\"raw\":{\"x\": 1},\"none\":{}}"),
       "written: %.*s", (int) text.len, text.data);

    ngx_destroy_pool(pool);

    /* each allocation in turn fails */

    for (i = 1, failed = 0; i < 20; i++) {
        pool = stub_pool();
        stub_fail = i;
        write_all(&j, pool);

        if (ngx_agent_json_done(&j, &text) == NGX_ERROR) {
            failed++;

        } else if (stub_fail == 0) {
            failed = 100;
        }

        stub_fail = 0;
        ngx_destroy_pool(pool);
    }

    ok(failed > 3 && failed < 20, "no memory is told by done()");
}


static void
parts(ngx_str_t s, const char *expected)
{
    int               bad;
    size_t            i, k;
    ngx_str_t         text;
    ngx_pool_t       *pool;
    ngx_agent_json_t  j;

    bad = 0;

    for (i = 0; i <= s.len; i++) {
        for (k = i; k <= s.len; k++) {
            pool = stub_pool();
            ngx_agent_json_init(&j, pool, 0);
            ngx_agent_json_string_begin(&j);
            ngx_agent_json_string_part(&j, s.data, i);
            ngx_agent_json_string_part(&j, s.data + i, k - i);
            ngx_agent_json_string_part(&j, s.data + k, s.len - k);
            ngx_agent_json_string_end(&j);

            bad += ngx_agent_json_done(&j, &text) != NGX_OK
                   || text.len != strlen(expected)
                   || memcmp(text.data, expected, text.len) != 0;

            ngx_destroy_pool(pool);
        }
    }

    ok(bad == 0, "parts: %s", expected);
}


/* what is JSON already, behind a character that does not go on */

static void
test_raw(void)
{
    ngx_str_t         text, raw = S("\\/\\n");
    ngx_pool_t       *pool;
    ngx_agent_json_t  j;

    pool = stub_pool();

    ngx_agent_json_init(&j, pool, 0);
    ngx_agent_json_string_begin(&j);
    ngx_agent_json_string_part(&j, (u_char *) "a\xe2\x82", 3);
    ngx_agent_json_string_raw(&j, &raw);
    ngx_agent_json_string_part(&j, (u_char *) "\xacz", 2);
    ngx_agent_json_string_end(&j);

    ok(ngx_agent_json_done(&j, &text) == NGX_OK
       && text.len == sizeof("\"a\xef\xbf\xbd\\/\\n\xef\xbf\xbdz\"") - 1
       && memcmp(text.data, "\"a\xef\xbf\xbd\\/\\n\xef\xbf\xbdz\"",
                 text.len) == 0,
       "a raw part is put as it is");

    ngx_destroy_pool(pool);
}


int
main(void)
{
    answer = NGX_OK;

    test_raw();

    test_good();
    test_bad();
    test_lenient();
    test_depth();
    test_handler();
    test_long();
    test_slices();
    test_write();

    parts(S("a\"b\nc"), "\"a\\\"b\\nc\"");
    parts(S("\xf0\x9f\x98\x80\xe2\x82\xac\xc3\xa9"),
          "\"\xf0\x9f\x98\x80\xe2\x82\xac\xc3\xa9\"");
    parts(S("\xff" "a\xe2\x82" "b\xc3\xc3\xa9\xf0\x9f"),
          "\"\xef\xbf\xbd" "a\xef\xbf\xbd" "b\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd"
          "\"");
    parts(S("\xe2\"\xed\xa0\x80"), "\"\xef\xbf\xbd\\\"\xef\xbf\xbd\xef\xbf\xbd"
          "\xef\xbf\xbd\"");

    ok(stub_used == 0, "nothing is left");

    return done_testing();
}
