/*
 * A small agent, built with the official JS SDK of Agent Protocol as its
 * README says: the real thing that the agent_protocol dialect talks to.
 *
 *   node container.js PORT WORKSPACE
 *
 * A step's input says what to do:
 *
 *   write FOLDER NAME TEXT   makes an artifact; "-" is no folder
 *   read PATH                says what stands in a file it was given
 *   fail WORDS               throws
 *   finish WORDS             the task is done
 *   anything else            is said again, with the task's input
 */

'use strict'

const fs = require('fs')
const path = require('path')

const { default: Agent, v4 } = require('agent-protocol')

const [port, workspace] = process.argv.slice(2)


function write(taskId, folder, name, text) {
  const relative = folder === '-' ? null : folder
  const file = path.join(workspace, taskId, relative ?? '', name)

  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, text)

  return { artifact_id: v4(), agent_created: true, file_name: name,
           relative_path: relative, created_at: String(Date.now()) }
}


async function taskHandler(taskId, taskInput) {
  let count = 0

  return async function stepHandler(stepInput) {
    const [word, ...rest] = (stepInput ?? '').split(' ')
    const result = { name: `step ${++count}`, output: null, artifacts: [],
                     is_last: false }

    switch (word) {
      case 'write':
        result.artifacts.push(write(taskId, rest[0], rest[1],
                                    rest.slice(2).join(' ')))
        result.output = `wrote ${rest[1]}`
        break

      case 'read':
        result.output = fs.readFileSync(path.join(workspace, taskId, rest[0]),
                                        'utf8')
        break

      case 'fail':
        throw new Error(rest.join(' '))

      case 'finish':
        result.output = rest.join(' ')
        result.is_last = true
        break

      default:
        result.output = `${taskInput}: ${stepInput}`
    }

    return result
  }
}


Agent.handleTask(taskHandler, { workspace, port: Number(port) }).start()
