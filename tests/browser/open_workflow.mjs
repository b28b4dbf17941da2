// Opens workflows in ComfyUI's front end, as a user who drops a file on the canvas, and says what came of each.
//
// stdin:  {"address", "chromium", "modules",
//          "workflows": [{"name", "text", "run": bool, "help": node id or null, "screenshot": "file.png" or null}]}
// stdout: {"version", "startErrors", "workflows": [{"name", "errors", "dialogs", "nodes", "prompt", "ui", "help"}]}
import path from 'node:path'
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'

const job = JSON.parse(readFileSync(0, 'utf8'))
const { chromium } = createRequire(path.join(job.modules, 'here.js'))('playwright-core')
const browser = await chromium.launch({ executablePath: job.chromium, args: ['--no-sandbox', '--disable-gpu'] })
const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } })

// Whatever the front end would like from the internet, it does without.
await page.route('**/*', (route) =>
  new URL(route.request().url()).origin === job.address ? route.continue() : route.abort()
)
let errors = []
page.on('pageerror', (error) => errors.push(error.message))
page.on('console', (message) => {
  const harmless = /net::ERR_FAILED|404 \(Not Found\)/
  if (message.type() === 'error' && !harmless.test(message.text())) errors.push(message.text())
})

await page.goto(job.address)
await page.waitForFunction(() => {
  const app = window.app ?? window.comfyAPI?.app?.app
  return app?.canvas && app?.extensionManager && document.querySelector('[data-testid="queue-button"]')
}, null, { timeout: 90_000 })
await page.evaluate(() => {
  window.app ??= window.comfyAPI.app.app
})
await page.waitForTimeout(1000)
const report = {
  version: await page.evaluate(() => window.__COMFYUI_FRONTEND_VERSION__),
  startErrors: errors,
  workflows: []
}
for (const workflow of job.workflows) report.workflows.push(await open(workflow))
process.stdout.write(JSON.stringify(report))
await browser.close()

async function open(workflow) {
  errors = []
  await page.keyboard.press('Escape')
  const before = await page.evaluate(() => app.graph.id)
  await page.evaluate(([name, text]) => {
    const files = new DataTransfer()
    files.items.add(new File([text], name, { type: 'application/json' }))
    const canvas = document.querySelector('#graph-canvas')
    const place = { bubbles: true, cancelable: true, dataTransfer: files, clientX: 800, clientY: 500 }
    for (const kind of ['dragenter', 'dragover', 'drop']) canvas.dispatchEvent(new DragEvent(kind, place))
  }, [workflow.name, workflow.text])
  await page.waitForFunction((id) => app.graph.id !== id, before, { timeout: 20_000 }).catch(() => {})
  await page.waitForTimeout(1500)
  const result = { name: workflow.name }
  result.dialogs = await page.evaluate(() =>
    [...document.querySelectorAll('[role=dialog], .p-dialog, .p-toast-message, [data-testid=error-overlay]')].map((box) =>
      box.innerText.trim()
    )
  )
  Object.assign(result, await page.evaluate(graphContents))
  if (workflow.screenshot) {
    await page.evaluate(() => app.extensionManager.command.execute('Comfy.Canvas.FitView'))
    await page.waitForTimeout(1500)
    await page.screenshot({ path: workflow.screenshot })
  }
  if (workflow.help) result.help = await help(workflow.help)
  if (workflow.run) {
    await page.locator('[data-testid="queue-button"]').getByRole('button').or(
      page.locator('button[data-testid="queue-button"]')).first().click()
    await page.waitForTimeout(1500)
  }
  result.errors = errors
  return result
}

async function help(id) {
  await page.evaluate((id) => {
    const node = app.graph.getNodeById(id)
    app.canvas.centerOnNode(node)
    app.canvas.selectNode(node)
  }, id)
  await page.locator('[data-testid="info-button"]').first().click({ timeout: 10_000 })
  const text = page.locator('.node-help-content')
  await text.waitFor({ timeout: 10_000 })
  await page.waitForTimeout(1000)
  return text.innerText()
}

// Runs in the page.
async function graphContents() {
  const nodes = []
  const visit = (graph, prefix) => {
    for (const node of graph.nodes) {
      nodes.push({
        id: prefix + node.id,
        type: node.type,
        title: node.title,
        labels: [...(node.inputs ?? []), ...(node.outputs ?? [])].map((slot) => slot.label ?? slot.localized_name),
        known: node.type in LiteGraph.registered_node_types || Boolean(node.subgraph),
        widgets: (node.widgets ?? []).map(({ name, type, value, options }) => ({
          name,
          type,
          value: typeof value === 'object' ? null : value,
          choices: Array.isArray(options?.values) ? options.values : null,
          min: options?.min,
          max: options?.max
        }))
      })
      if (node.subgraph) visit(node.subgraph, `${prefix}${node.id}:`)
    }
  }
  visit(app.graph, '')
  const { output } = await app.graphToPrompt()
  return { nodes, prompt: JSON.parse(JSON.stringify(output)), ui: JSON.parse(JSON.stringify(app.graph.serialize())) }
}
