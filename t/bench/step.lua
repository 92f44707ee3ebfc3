-- POST step, each to a task of its own.  The ids are the lines of a file;
-- how far it is used up stands in a file beside it, for the next sample.
-- With a second argument, "async", nobody waits for its end.

local threads = {}

function setup(thread)
   thread:set("id", #threads)
   table.insert(threads, thread)
end

function init(args)
   file, used, ids = args[1], 0, {}
   headers = { ["Content-Type"] = "application/json" }

   -- what wrk is given by -H
   for name, value in pairs(wrk.headers) do
      headers[name] = value
   end

   if args[2] == "async" then
      headers["Prefer"] = "respond-async"
   end

   local skip = tonumber(io.open(file .. ".next"):read("*l"))
   local n = 0
   local made = wrk.format("POST", wrk.path .. "/tasks/@/steps", headers, "{}")

   head, tail = made:match("^(.-)@(.*)$")

   for line in io.lines(file) do
      if n >= skip and n % 2 == id then
         table.insert(ids, line)
      end
      n = n + 1
   end
end

function request()
   used = used + 1

   -- past the end of the file: a wrong answer, which run.sh refuses
   return head .. (ids[used] or "no-more") .. tail
end

function done(summary, latency, requests)
   local most = 0

   for _, thread in ipairs(threads) do
      most = math.max(most, thread:get("used"))
   end

   local path = threads[1]:get("file") .. ".next"
   local skip = tonumber(io.open(path):read("*l"))
   local out = io.open(path, "w")
   out:write(skip + most * 2, "\n")
   out:close()
end
