-- Requests of every kind in turn, on the ids that the answers have brought.
-- Answers come in no order, so they have to name what they are about: an
-- uploaded file carries the id of its task in its name.

local json = { ["Content-Type"] = "application/json" }
local form = { ["Content-Type"] = "multipart/form-data; boundary=b" }
local good = { [200] = true, [404] = true, [405] = true, [422] = true }

local threads = {}
local turn = 0
local fresh, seen = {}, {}
local task, step, artifact
unexpected = 0

local function upload()
   return '--b\r\nContent-Disposition: form-data; name="file"; filename="'
      .. task .. '"\r\n\r\n' .. string.rep("x", 2000) .. "\r\n--b--\r\n"
end

local function make()
   return "POST", "/tasks", json, '{"input": "of every kind"}'
end

-- each task once: a second step would meet the first

local function run()
   local id = table.remove(fresh)

   if not id then
      return make()
   end
   return "POST", "/tasks/" .. id .. "/steps", json, "{}"
end

local kinds = {
   make,
   run,
   function() return "GET", "/tasks/" .. task end,
   function() return "GET", "/tasks?page_size=50" end,
   function()
      return "POST", "/tasks/" .. task .. "/artifacts", form, upload()
   end,
   function() return "GET", "/tasks/" .. task .. "/steps" end,
   function() return "GET", "/tasks/" .. task .. "/artifacts" end,
   function() return "POST", "/tasks", json, '{"input": 1}' end,
   function() return "GET", "/tasks/nothing" end,
   function() return "DELETE", "/tasks/" .. task end,
   function()
      if not artifact then return make() end
      return "GET", "/tasks/" .. artifact[1] .. "/artifacts/" .. artifact[2]
   end,
   function()
      if not step then return make() end
      return "GET", "/tasks/" .. step[1] .. "/steps/" .. step[2]
   end,
}

function setup(thread)
   table.insert(threads, thread)
end

function request()
   turn = turn + 1

   local method, path, headers, body =
      kinds[task and turn % #kinds + 1 or 1]()
   return wrk.format(method, wrk.path .. path, headers, body)
end

local function id(body, name)
   return body:match('"' .. name .. '":%s*"([^"]+)"')
end

local function is_task(body)
   return body:find("of every kind", 1, true) ~= nil
end

function response(status, headers, body)
   if not good[status] then
      unexpected = unexpected + 1
   end

   if status ~= 200 or body:find('"pagination"', 1, true) then
      return
   end

   if id(body, "step_id") then
      step = { id(body, "task_id"), id(body, "step_id") }
   elseif is_task(body) then
      local new = id(body, "task_id")

      if not seen[new] then
         seen[new] = true
         task = new
         table.insert(fresh, new)
      end
   elseif id(body, "artifact_id") then
      artifact = { id(body, "file_name"), id(body, "artifact_id") }
   end
end

function done(summary, latency, requests)
   for _, thread in ipairs(threads) do
      if thread:get("unexpected") > 0 then
         print("unexpected answers: " .. thread:get("unexpected"))
      end
   end
end
