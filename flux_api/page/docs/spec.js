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
    const json = content["application/json"];
    const form = content["multipart/form-data"]?.schema;
    const asJson = Object.entries(json?.schema.properties || {});
    return {
      id: found.operationId, method, path, others: [],
      description: found.description,
      parameters: (found.parameters || []).map((one) => this.resolve(one)),
      body: form || json?.schema,
      isJson: Boolean(json && !form),
      // Those fields that may come several times.
      lists: asJson.filter(([, { anyOf = [] }]) => anyOf.some(({ type }) => type === "array")).map(([name]) => name),
      example: json?.example,
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
  if (schema.type === "array") return `${typeOf(schema.items) || "any"}[]`;
  if (schema.format === "binary") return "file";
  const kinds = [schema.type || "any"].flat();
  return kinds.join(" | ");
}
