-- Tasks and steps by turns: a step for every task that was made.

local json = { ["Content-Type"] = "application/json" }
local fresh = {}

function init(args)
   make = wrk.format("POST", wrk.path .. "/tasks", json,
                     '{"input": "Write the word Washington to output.txt"}')
end

function request()
   local task = table.remove(fresh)

   if task then
      return wrk.format("POST", wrk.path .. "/tasks/" .. task .. "/steps",
                        json, "{}")
   end

   return make
end

-- a step's answer names its task too, but has a step_id

function response(status, headers, body)
   if not body:find('"step_id"', 1, true) then
      table.insert(fresh, (body:match('"task_id":%s*"([^"]+)"')))
   end
end
