-- GET list of tasks: one page.

function init(args)
   made = wrk.format("GET", wrk.path .. "/tasks?page_size=10&current_page="
                     .. args[1])
end

function request()
   return made
end
