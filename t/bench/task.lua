-- POST task: the same small body every time.

function init(args)
   local body = '{"input": "Write the word Washington to output.txt"}'
   wrk.headers["Content-Type"] = "application/json"
   made = wrk.format("POST", wrk.path .. "/tasks", nil, body)
end

function request()
   return made
end
