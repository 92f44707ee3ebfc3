-- The same upstream through plain proxy_pass, with the very body that the
-- module sends for a step of the bench.

function init(args)
   local body = '{"model":"bench","messages":[{"role":"user","content":"Write'
      .. ' the word Washington to output.txt"}],"stream":true,"stream_'
      .. 'options":{"include_usage":true},"tools":[{"type":"function",'
      .. '"function":{"name":"write_artifact","description":"Writes a '
      .. 'file that the user gets. Give the whole content; writing the'
      .. ' same path again makes a new version.","parameters":{"type":'
      .. '"object","properties":{"path":{"type":"string","description"'
      .. ':"relative path, for example docs/plan.md"},"content":{"type'
      .. '":"string"}},"required":["path","content"]}}},{"type":"funct'
      .. 'ion","function":{"name":"read_artifact","description":"Reads'
      .. ' a file of this task: one that you wrote or that the user up'
      .. 'loaded.","parameters":{"type":"object","properties":{"path":'
      .. '{"type":"string"}},"required":["path"]}}},{"type":"function"'
      .. ',"function":{"name":"list_artifacts","description":"Lists th'
      .. 'e paths of this task\'s files.","parameters":{"type":"object"'
      .. ',"properties":{}}}},{"type":"function","function":{"name":"a'
      .. 'sk_user","description":"Asks the user and waits for the answ'
      .. 'er. Set secret when the answer is a password, key or the lik'
      .. 'e.","parameters":{"type":"object","properties":{"question":{'
      .. '"type":"string"},"secret":{"type":"boolean"}},"required":["q'
      .. 'uestion"]}}},{"type":"function","function":{"name":"finish",'
      .. '"description":"Ends the task; call it when all is done.","pa'
      .. 'rameters":{"type":"object","properties":{"summary":{"type":"'
      .. 'string","description":"what was done, for the user"}},"requi'
      .. 'red":["summary"]}}}]}'
   made = wrk.format("POST", "/" .. args[1] .. "/chat/completions",
                     { ["Content-Type"] = "application/json" }, body)
end

function request()
   return made
end
