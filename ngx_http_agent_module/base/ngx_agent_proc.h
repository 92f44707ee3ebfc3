
/*
 * Processes of this machine: is the one that had this number still the same?
 * Reads /proc where there is one; no events, no memory of its own.
 */

#ifndef _NGX_AGENT_PROC_H_INCLUDED_
#define _NGX_AGENT_PROC_H_INCLUDED_


#include "ngx_agent.h"


#define NGX_AGENT_PROC_HOST      96


/*
 * When a process was born, in the system's own units: with the pid it names
 * the process for good.  0: it lives, but its birth cannot be told here; -1:
 * there is no such process, or only its corpse.
 */
int64_t ngx_agent_proc_born(ngx_pid_t pid);

/*
 * 1: the process with that pid and birth is gone for certain; 0: it lives, or
 * nobody can tell.  Valid only among those who share a "host" as below.
 */
ngx_uint_t ngx_agent_proc_gone(ngx_pid_t pid, int64_t born);

/*
 * A name that two processes share only if a pid and a birth mean the same to
 * both: the host's name and a hash of this boot, the pid namespace and the
 * clock's: "web1#5f3a90c2d1e04b77".  Printable ASCII without white space.
 * buf has NGX_AGENT_PROC_HOST bytes and must stay.
 */
void ngx_agent_proc_host(ngx_str_t *hostname, u_char *buf, ngx_str_t *host);


#endif /* _NGX_AGENT_PROC_H_INCLUDED_ */
