// An OpenAPI document, its references followed. Knows nothing of the page.

export class Spec {
  constructor(document) {
    this.document = document;
  }

  // What `thing` is, or refers to.
  resolve(thing) {
    if (!thing?.$ref) return thing;
    return thing.$ref.slice(2).split("/").reduce((part, name) => part[name], this.document);
  }

  // The operations by tag. Those that do the same under another address stand with the first.
  shelves() {
    const shelves = new Map(this.document.tags.map(({ name }) => [name, new Map()]));
    for (const [path, methods] of Object.entries(this.document.paths)) {
      for (const [method, found] of Object.entries(methods)) {
        const shelf = shelves.get(found.tags[0]);
        const same = shelf.get(`${method} ${found.description}`);
        if (same) same.others.push(path);
        else shelf.set(`${method} ${found.description}`, this.#describe(path, method, found));
      }
    }
    return [...shelves]
      .map(([name, shelf]) => ({ name, operations: [...shelf.values()] }))
      .filter(({ operations }) => operations.length);
  }

  #describe(path, method, found) {
    const content = this.resolve(found.requestBody)?.content || {};
    const body = content["multipart/form-data"]?.schema;
    const asJson = Object.entries(content["application/json"]?.schema.properties || {});
    return {
      id: found.operationId, method, path, others: [],
      description: found.description,
      parameters: (found.parameters || []).map((one) => this.resolve(one)),
      body,
      // Those fields that may come several times.
      lists: asJson.filter(([, { anyOf = [] }]) => anyOf.some(({ type }) => type === "array")).map(([name]) => name),
      example: content["application/json"]?.example,
      answers: Object.entries(found.responses).map(([status, one]) => ({ status, ...this.resolve(one) })),
    };
  }
}

// The fields of a body as parameters are: by name, with their schema.
export function fieldsOf(body) {
  const required = body?.required || [];
  return Object.entries(body?.properties || {}).map(([name, schema]) => ({
    name, schema, description: schema.description, required: required.includes(name), in: "body",
  }));
}

// A schema in a few words.
export function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return `list of ${typeOf(schema.items) || "anything"}`;
  if (schema.format === "binary") return "file";
  const kinds = [schema.type || "anything"].flat();
  return kinds.join(" | ");
}

// What a value may be: bounds, the form of a text.
export function boundsOf({ minimum, maximum, maxLength, pattern, default: usual }) {
  const parts = [];
  // Above 2^53 a number here is no longer the one that was meant.
  const most = maximum > Number.MAX_SAFE_INTEGER ? "2^64 - 1" : maximum;
  if (minimum !== undefined && Math.abs(minimum) < 1e9) parts.push(`${minimum} to ${most}`);
  if (maxLength !== undefined) parts.push(`at most ${maxLength} characters`);
  if (pattern) parts.push(pattern);
  if (usual !== undefined && String(usual)) parts.push(`default ${usual}`);
  return parts.join("; ");
}
