-- The same upstream through plain proxy_pass, with the body that a step's
-- chat completion has.

function init(args)
   local body = '{"model":"bench","stream":true,"stream_options":'
      .. '{"include_usage":true},"messages":[{"role":"user","content":'
      .. '"Write the word Washington to output.txt"}]}'
   made = wrk.format("POST", "/plain/chat/completions",
                     { ["Content-Type"] = "application/json" }, body)
end

function request()
   return made
end
