-- POST task: the same small body every time.

function init(args)
   local body = '{"input": "Write the word Washington to output.txt"}'
   made = wrk.format("POST", wrk.path .. "/tasks",
                     { ["Content-Type"] = "application/json" }, body)
end

function request()
   return made
end
