-- GET task: a random one of the rows that fill.sql made.

function init(args)
   tasks = tonumber(args[1])
   math.randomseed(os.time() + id * 7919)
end

function setup(thread)
   counter = (counter or 0) + 1
   thread:set("id", counter)
end

function request()
   local n = math.random(1, tasks)
   return wrk.format("GET", string.format(
      "%s/tasks/01900000-0000-7000-8000-%012x", wrk.path, n))
end
