# Builds the module and runs what checks it.
#
#   make                   build/ngx_http_agent_module.so for the nginx that is
#                          installed (Debian: packages nginx and nginx-dev)
#   make NGINX_SRC=<tree>    for the nginx of another source tree
#   make install           copies the .so to the modules folder of nginx
#   make asan              an nginx and a module with ASan and UBSan
#   make test              the suite (t/run.sh)
#   make matrix            the suite on nginx 1.22, 1.26 and 1.30
#   make valgrind          leaks and invalid accesses, under a small load
#   make torture           minutes of kills, reloads and faults under load
#   make fuzz | lint | bench
#   make clean
#
#   BUILD=<folder>         where to build; two builds at once need two folders
#   NGINX_BIN=<binary>     the nginx that will load the module
#
# Paths may have no spaces in them: nginx's own build cannot stand them.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory

BUILD   ?= build
NGINX_SRC ?= /usr/share/nginx/src
NGINX_BIN ?= $(shell PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v nginx)

# Debian's hardening flags are not added by nginx's configure.  nginx itself
# adds -Wall and -Werror.
WARN   := -Wall -Wextra -Werror -Wno-unused-parameter
CC_OPT ?= -g -O2 -fstack-protector-strong -Wformat -Werror=format-security \
          -Wdate-time -D_FORTIFY_SOURCE=2
LD_OPT ?= -Wl,-z,relro -Wl,-z,now

# What a server of our own is built with ("make server", asan and matrix).
SERVER_OPT ?= --with-compat --with-debug --with-threads \
              --with-http_ssl_module --with-http_v2_module \
              --with-http_auth_request_module --with-http_realip_module \
              --with-http_stub_status_module

SANITIZE := -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined \
            -DNGX_DEBUG_PALLOC=1
SANITIZE_ENV := ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0 \
                UBSAN_OPTIONS=suppressions=$(CURDIR)/t/lib/ubsan.supp

name   := ngx_http_agent_module
out    := $(abspath $(BUILD))
tree   := $(out)/nginx
module := $(out)/$(name).so
server := $(out)/server/objs/nginx

# Deferred: the shells run only for the goals that ask.
version_of = $(shell sed -n 's/.*NGINX_VERSION .*"\(.*\)"/\1/p' \
                     '$(1)/src/core/nginx.h' 2>/dev/null)
running    = $(shell '$(NGINX_BIN)' -v 2>&1 | sed -n 's|.*nginx/\([0-9.]*\).*|\1|p')

# Of its configure arguments only these change what a module may use.
same_opt   = $(shell '$(NGINX_BIN)' -V 2>&1 | tr ' ' '\n' | grep -xE \
           -- '--with-(compat|debug|threads|file-aio|http_v2_module)' || true)
module_opt = $(or $(if $(filter $(call version_of,$(NGINX_SRC)),$(running)),\
             $(same_opt)),--with-compat --with-threads --with-http_v2_module)

sources = $(sort $(wildcard $(name)/*.[ch] $(name)/*/*.[ch]))

# $(call configure,<folder>,<arguments>): some trees have it in auto/
configure = cd '$(1)' && \
	if [ -x configure ]; then c=./configure; else c=auto/configure; fi; \
	$$c $(2) > '$(1).log' 2>&1 || { tail -n 12 '$(1).log' >&2; \
	echo "make: nginx's configure failed; all of it is in $(1).log" >&2; \
	exit 1; }

copy_tree = rm -rf '$(1)' && mkdir -p '$(1)' && cp -R \
	$(wildcard $(addprefix $(NGINX_SRC)/,auto configure src)) '$(1)/'


.PHONY: module server check-deps check-load install asan test matrix valgrind \
        torture fuzz lint bench clean FORCE

module: $(module)
	@$(MAKE) check-load

FORCE:

check-deps:
	@need() { echo "make: $$1; install the Debian package $$2" >&2; exit 1; }; \
	command -v cc > /dev/null \
	    || need "there is no C compiler" build-essential; \
	echo '#include <stdlib.h>' | cc -E -x c - > /dev/null 2>&1 \
	    || need "the C library's headers are missing" build-essential; \
	[ -e '$(NGINX_SRC)/src/core/nginx.h' ] || { \
	    [ '$(NGINX_SRC)' = /usr/share/nginx/src ] \
	    && need "nginx's headers are missing" nginx-dev; \
	    echo "make: NGINX_SRC=$(NGINX_SRC) is no nginx source tree" >&2; exit 1; }; \
	command -v pg_config > /dev/null \
	    || need "pg_config is missing" libpq-dev; \
	[ -e "$$(pg_config --includedir)/libpq-fe.h" ] \
	    || need "libpq-fe.h is missing" libpq-dev; \
	echo '#include <yajl/yajl_parse.h>' | cc -E -x c - > /dev/null 2>&1 \
	    || need "yajl's headers are missing" libyajl-dev; \
	echo '#include <openssl/evp.h>' | cc -E -x c - > /dev/null 2>&1 \
	    || need "OpenSSL's headers are missing" libssl-dev; \
	echo '#include <pcre2.h>' \
	    | cc -DPCRE2_CODE_UNIT_WIDTH=8 -E -x c - > /dev/null 2>&1 \
	    || echo '#include <pcre.h>' | cc -E -x c - > /dev/null 2>&1 \
	    || need "pcre2.h is missing" libpcre2-dev; \
	echo '#include <zlib.h>' | cc -E -x c - > /dev/null 2>&1 \
	    || need "zlib.h is missing" zlib1g-dev; \
	v='$(call version_of,$(NGINX_SRC))'; \
	if [ '$(NGINX_SRC)' = /usr/share/nginx/src ] && [ -n '$(running)' ] \
	   && [ "$$v" != '$(running)' ]; then \
	    echo "make: nginx-dev is of nginx $$v, but $(NGINX_BIN) is $(running):" \
	         "a module loads only in the version it was built for; install" \
	         "nginx and nginx-dev of one version, or set NGINX_SRC to the" \
	         "source of nginx $(running)" >&2; exit 1; fi

# Changes when a configure is due: another tree, other flags, other files.
$(out)/inputs: check-deps FORCE
	@mkdir -p '$(out)'
	@{ echo '$(NGINX_SRC) $(call version_of,$(NGINX_SRC)) $(module_opt)'; \
	   echo '$(WARN) $(CC_OPT) | $(LD_OPT)'; \
	   printf '%s\n' $(sources); cat config; } > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(tree)/objs/Makefile: $(out)/inputs
	@$(call copy_tree,$(tree))
	@$(call configure,$(tree),$(module_opt) \
	    --with-cc-opt='$(CC_OPT) $(WARN)' --with-ld-opt='$(LD_OPT)' \
	    --add-dynamic-module='$(CURDIR)')

$(module): $(tree)/objs/Makefile FORCE
	@$(MAKE) -C '$(tree)' -f objs/Makefile modules
	@cmp -s '$(tree)/objs/$(name).so' $@ \
	    || { cp '$(tree)/objs/$(name).so' $@.new && mv $@.new $@; }

# nginx checks the version and the signature when it loads a module.
check-load:
	@v='$(call version_of,$(NGINX_SRC))'; \
	if [ -z '$(running)' ]; then \
	    echo "built $(module) for nginx $$v (no nginx here to load it)"; \
	    exit 0; fi; \
	if [ "$$v" != '$(running)' ]; then \
	    echo "built $(module) for nginx $$v; $(NGINX_BIN) is $(running) and" \
	         "will not load it"; exit 0; fi; \
	printf '%s\n' 'pid $(out)/check.pid;' 'error_log stderr;' \
	    'load_module $(module);' 'events { }' > '$(out)/check.conf'; \
	if ! said=$$('$(NGINX_BIN)' -t -e stderr -p '$(out)' -c '$(out)/check.conf' \
	             2>&1); then \
	    printf '%s\n' "$$said" >&2; \
	    case $$said in \
	    *'not binary compatible'*) echo "make: $(NGINX_BIN) was configured in" \
	         "another way than the module; build it from the very source" \
	         "and flags of that nginx (NGINX_SRC=), or use an nginx built" \
	         "with --with-compat" >&2 ;; \
	    *version*) echo "make: the module is for nginx $$v and $(NGINX_BIN)" \
	         "is another one" >&2 ;; \
	    *'cannot open shared'*|*'undefined symbol'*) echo "make: a library" \
	         "of the module is missing; install the Debian packages libpq5," \
	         "libyajl2 and libssl3" >&2 ;; \
	    *) echo "make: $(NGINX_BIN) does not load the module" >&2 ;; \
	    esac; exit 1; fi; \
	echo "built $(module) for nginx $$v"

# An nginx of our own from NGINX_SRC.
$(out)/server.inputs: FORCE
	@mkdir -p '$(out)'
	@echo '$(abspath $(NGINX_SRC)) $(call version_of,$(NGINX_SRC))' \
	    '$(SERVER_OPT) | $(CC_OPT) | $(LD_OPT)' > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(out)/server/objs/Makefile: $(out)/server.inputs
	@echo '#include <openssl/ssl.h>' | cc -E -x c - > /dev/null 2>&1 \
	    || { echo "make: openssl/ssl.h is missing; install the Debian" \
	         "package libssl-dev" >&2; exit 1; }
	@$(call copy_tree,$(out)/server)
	@$(call configure,$(out)/server,$(SERVER_OPT) --prefix='$(out)/server' \
	    --error-log-path=stderr --with-cc-opt='$(CC_OPT)' \
	    --with-ld-opt='$(LD_OPT)')

$(server): $(out)/server/objs/Makefile
	@$(MAKE) -C '$(out)/server' -f objs/Makefile binary > '$(out)/server.log' \
	    2>&1 || { tail -n 20 '$(out)/server.log' >&2; exit 1; }

server: check-deps
	@[ -e '$(NGINX_SRC)/src/core/nginx.c' ] || { \
	    echo "make: NGINX_SRC=$(NGINX_SRC) has headers only; set it to the" \
	         "whole source of an nginx" >&2; exit 1; }
	@$(MAKE) '$(server)'

install: module
	@[ -n '$(running)' ] || { \
	    echo "make: there is no nginx whose modules folder to use; install" \
	         "the Debian package nginx, or set NGINX_BIN=" >&2; exit 1; }
	@dir=$$('$(NGINX_BIN)' -V 2>&1 | tr ' ' '\n' \
	        | sed -n 's/^--modules-path=//p'); \
	if [ -z "$$dir" ]; then \
	    dir=$$('$(NGINX_BIN)' -V 2>&1 | tr ' ' '\n' \
	           | sed -n 's/^--prefix=//p')/modules; fi; \
	install -D -m 0644 '$(module)' "$(DESTDIR)$$dir/$(name).so"; \
	echo "installed $(DESTDIR)$$dir/$(name).so; in nginx.conf:" \
	     "load_module $$dir/$(name).so;"

# nginx-dev has headers only: the sources of an nginx come from Debian's
# source package, or from NGINX_SRC when that is a whole tree.
asan: asan_out = $(if $(filter build,$(BUILD)),build/asan,$(BUILD))
asan: asan_src = $(if $(wildcard $(NGINX_SRC)/src/core/nginx.c),$(NGINX_SRC),\
                 build/src/bookworm)
asan: export CC_OPT := $(SANITIZE)
asan: export LD_OPT := -fsanitize=address,undefined
asan:
	@. t/lib/apt.sh; nginx_source '$(abspath $(asan_src))' bookworm
	@$(MAKE) server BUILD='$(asan_out)' NGINX_SRC='$(asan_src)'
	@$(SANITIZE_ENV) $(MAKE) module BUILD='$(asan_out)' \
	    NGINX_SRC='$(asan_src)' NGINX_BIN='$(abspath $(asan_out))/server/objs/nginx'

test:
	@t/run.sh

matrix:
	@t/lib/matrix.sh

valgrind:
	@t/valgrind.sh

torture:
	@t/run.sh --torture

fuzz:
	@t/fuzz/run.sh

lint:
	@t/lint.sh

bench:
	@t/bench/run.sh

clean:
	rm -rf build t/servroot* t/tmp
