// Serves a WSDL of the form of Salesforce's Partner API with the npm package `soap`, over records in memory.
// Usage: node soap_server.js WSDL PATH; prints the port that it listens on. NODE_PATH has the package.
'use strict';
const fs = require('fs');
const http = require('http');
const soap = require('soap');

const [wsdlFile, path] = process.argv.slice(2);
const USER = 'sync@example.com';
const PASSWORD = 'Soap & <tests> 1';
const PAGE = 2000;
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
const records = new Map(); // id -> record
const external = new Map(); // type/field/value -> id
const told = { logins: 0, calls: {}, most: 0 };
const faults = []; // "operation:code", each the answer to one request
let session = null; // the only session that is let in
let left = Infinity; // requests until it ends
let lastId = 0;
const EXTERNAL = 'Ext__c';
// The package writes xsi:nil and declares no such prefix, so that what is nil is written here.
const XSI = ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"';
const OWN = new Set(['type', 'fieldsToNull', 'Id', 'attributes']);

function newId() {
  let number = ++lastId, text = '';
  while (text.length < 12) { text = ALPHABET[number % 32] + text; number = Math.floor(number / 32); }
  return '003' + text + 'AAA';
}

function fault(code, text) {
  return { Fault: { faultcode: 'sf:' + code, faultstring: code + ': ' + text, statusCode: 500 } };
}

function enter(name, headers) {
  told.calls[name] = (told.calls[name] || 0) + 1;
  const place = faults.findIndex((one) => one.startsWith(name + ':'));
  if (place >= 0) { const code = faults.splice(place, 1)[0].slice(name.length + 1); throw fault(code, code + ' on demand'); }
  const given = headers && headers.SessionHeader && headers.SessionHeader.sessionId;
  if (session === null || given !== session || left-- <= 0) {
    session = null; left = Infinity;
    throw fault('INVALID_SESSION_ID', 'Invalid Session ID found in SessionHeader');
  }
}

function many(value) { return value === undefined || value === null ? [] : Array.isArray(value) ? value : [value]; }
function text(value) {
  if (value !== null && typeof value === 'object') return value.$value === undefined ? null : String(value.$value);
  return value === undefined || value === null ? null : String(value);
}
function failed(code, message, created) {
  return { $xml: (created === undefined ? '' : '<created>' + created + '</created>') + '<errors><message>' + escape(message) +
    '</message><statusCode>' + code + '</statusCode></errors><id' + XSI + ' xsi:nil="true"/><success>false</success>' };
}

function wrong(fields, made, created) {
  if (made && !fields.get('LastName')) return failed('REQUIRED_FIELD_MISSING', 'Required fields are missing: [LastName]', created);
  if ((fields.get('LastName') || '').startsWith('bad')) {
    return failed('FIELD_CUSTOM_VALIDATION_EXCEPTION', 'Last Name: ' + fields.get('LastName') + ' is no name', created);
  }
  return null;
}

function given(object) {
  const fields = new Map();
  for (const name of Object.keys(object)) if (!OWN.has(name)) fields.set(name, text(object[name]));
  for (const name of many(object.fieldsToNull)) fields.set(text(name), null);
  return fields;
}

function store(id, type, fields) {
  const record = records.get(id) || new Map([['Id', id], ['type', type]]);
  if (record.get(EXTERNAL)) external.delete(type + '/' + record.get(EXTERNAL));
  for (const [name, value] of fields) { if (value === null || value === '') record.delete(name); else record.set(name, value); }
  if (record.get(EXTERNAL)) external.set(type + '/' + record.get(EXTERNAL), id);
  records.set(id, record);
}

function batch(objects) {
  told.most = Math.max(told.most, objects.length);
  if (objects.length > 200) throw fault('EXCEEDED_ID_LIMIT', 'record limit reached. cannot submit more than 200 records');
}

const port = {
  login(args, callback, headers, request) {
    told.logins += 1;
    if (args.username !== USER || args.password !== PASSWORD) {
      throw fault('INVALID_LOGIN', 'Invalid username, password, security token; or user locked out.');
    }
    session = '00D' + String(told.logins).padStart(6, '0') + '!secret<' + Math.random().toString(36).slice(2) + '>';
    return { result: { passwordExpired: false, sandbox: false, serverUrl: 'http://127.0.0.1' + path, sessionId: session, userId: newId() } };
  },
  create(args, callback, headers) {
    enter('create', headers);
    const objects = many(args.sObjects); batch(objects);
    return { result: objects.map((object) => {
      const fields = given(object), bad = wrong(fields, true), type = text(object.type);
      if (bad) return bad;
      if (fields.get(EXTERNAL) && external.has(type + '/' + fields.get(EXTERNAL))) {
        return failed('DUPLICATE_VALUE', 'duplicate value found: ' + EXTERNAL);
      }
      const id = newId(); store(id, type, fields);
      return { id, success: true };
    }) };
  },
  upsert(args, callback, headers) {
    enter('upsert', headers);
    const objects = many(args.sObjects); batch(objects);
    const field = text(args.externalIDFieldName);
    if (field !== EXTERNAL) throw fault('INVALID_FIELD', 'Field name provided, ' + field + ' is not an External ID');
    return { result: objects.map((object) => {
      const fields = given(object), type = text(object.type), key = fields.get(EXTERNAL);
      if (!key) return failed('MISSING_ARGUMENT', EXTERNAL + ' not specified', false);
      const known = external.get(type + '/' + key), bad = wrong(fields, !known, false);
      if (bad) return bad;
      const id = known || newId(); store(id, type, fields);
      return { created: !known, id, success: true };
    }) };
  },
  update(args, callback, headers) {
    enter('update', headers);
    const objects = many(args.sObjects); batch(objects);
    return { result: objects.map((object) => {
      const id = text(object.Id), fields = given(object);
      if (!records.has(id)) return failed('ENTITY_IS_DELETED', 'entity is deleted');
      const bad = wrong(fields, false);
      if (bad) return bad;
      store(id, text(object.type), fields);
      return { id, success: true };
    }) };
  },
  delete(args, callback, headers) {
    enter('delete', headers);
    const ids = many(args.ids).map(text); batch(ids);
    return { result: ids.map((id) => {
      const record = records.get(id);
      if (!record) return failed('ENTITY_IS_DELETED', 'entity is deleted');
      records.delete(id); external.delete(record.get('type') + '/' + record.get(EXTERNAL));
      return { id, success: true };
    }) };
  },
  query(args, callback, headers) { enter('query', headers); return { result: { $xml: page(text(args.queryString), 0) } }; },
  queryMore(args, callback, headers) {
    enter('queryMore', headers);
    const [at, ...query] = text(args.queryLocator).split(':');
    return { result: { $xml: page(query.join(':'), Number(at)) } };
  },
  describeSObject(args, callback, headers) {
    enter('describeSObject', headers);
    const fields = [['Id', 'id', false], [EXTERNAL, 'string', true], ['LastName', 'string', true], ['Note__c', 'string', true],
      ['Amount__c', 'double', true], ['Active__c', 'boolean', true], ['OwnerId', 'reference', true], ['Birthdate', 'date', true]];
    return { result: { $xml: '<name>' + escape(text(args.sObjectType)) + '</name>' + fields.map(([name, type, writable]) =>
      '<fields><createable>' + writable + '</createable><externalId>' + (name === EXTERNAL) + '</externalId><label>' + name + '</label><name>' + name + '</name><type>' + type +
      '</type><updateable>' + writable + '</updateable></fields>').join('') } };
  },
};

function escape(value) {
  return value.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/\r/g, '&#13;');
}

// SELECT a, b FROM Type is all that is understood of SOQL here. An Id that is asked for comes twice, as at Salesforce.
function page(query, at) {
  const found = /^SELECT ([\w, ]+) FROM (\w+)$/.exec(query);
  if (!found) throw fault('MALFORMED_QUERY', 'unexpected token: ' + query);
  const names = found[1].split(',').map((name) => name.trim());
  const all = [...records.values()].filter((record) => record.get('type') === found[2]);
  const some = all.slice(at, at + PAGE), next = at + some.length, done = next >= all.length;
  const rows = some.map((record) => '<records' + XSI + ' xsi:type="sf:sObject" xmlns:sf="urn:sobject.partner.soap.sforce.com">' +
    '<sf:type>' + found[2] + '</sf:type><sf:Id>' + record.get('Id') + '</sf:Id>' + names.map((name) => record.has(name)
      ? '<sf:' + name + '>' + escape(record.get(name)) + '</sf:' + name + '>' : '<sf:' + name + ' xsi:nil="true"/>').join('') +
    '</records>');
  return '<done>' + done + '</done><queryLocator' + (done ? XSI + ' xsi:nil="true"/>' : '>' + next + ':' + query + '</queryLocator>') +
    rows.join('') + '<size>' + all.length + '</size>';
}

// For tests: POST {end: true} ends the session, {after: n} lets n more requests in, {faults: ['upsert:CODE']} are the next answers,
// {clear: true} forgets all records; the answer says what was counted.
const server = http.createServer((request, response) => {
  if (request.url !== '/control') { response.writeHead(404); response.end(); return; }
  let body = '';
  request.on('data', (part) => { body += part; });
  request.on('end', () => {
    const asked = JSON.parse(body || '{}');
    if (asked.end) session = null;
    if ('after' in asked) left = asked.after === null ? Infinity : asked.after;
    if (asked.faults) faults.push(...asked.faults);
    if (asked.clear) { records.clear(); external.clear(); told.logins = 0; told.calls = {}; told.most = 0; session = null; left = Infinity; faults.length = 0; }
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ ...told, records: records.size, user: USER, password: PASSWORD, session }));
  });
});
server.listen(0, '127.0.0.1', () => {
  soap.listen(server, { path, services: { SforceService: { Soap: port } }, xml: fs.readFileSync(wsdlFile, 'utf8'),
    preserveWhitespace: true, callback: () => console.log(server.address().port) });
});
