// Both surfaces of one ear in WebGL: total fluid translucent or solid, endolymph solid, in parallel projection.

import { write, writeLetters } from "./slices.js";

const COLORS = { total_fluid_space: [0.337, 0.706, 0.914], endolymph: [0.902, 0.624, 0.0] };
const TRANSLUCENT = 0.38;
const LETTERS = [["R", "L"], ["A", "P"], ["F", "H"]];

// Less than 6 degrees out of the picture's axis is not worth a second letter; the still pictures use the same.
const LETTER_THRESHOLD = 0.1;

const VERTEX = `
attribute vec3 place, normal;
uniform mat3 toView;
uniform vec3 middle;
uniform float scale;
varying vec3 facing;
void main() {
  vec3 seen = toView * (place - middle) * scale;
  facing = toView * normal;
  gl_Position = vec4(seen.xy, -0.5 * seen.z, 1.0);
}`;

const FRAGMENT = `
precision mediump float;
uniform vec4 color;
varying vec3 facing;
void main() {
  float light = 0.4 + 0.6 * abs(dot(normalize(facing), normalize(vec3(0.3, 0.4, 0.87))));
  gl_FragColor = vec4(color.rgb * light, color.a);
}`;

// Reads a binary PLY file as the node writes it: float32 vertices, triangles.
export async function readSurface(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: the node answered ${answer.status}`);
  const buffer = await answer.arrayBuffer();
  const head = new TextDecoder("ascii").decode(buffer.slice(0, 512));
  const body = head.indexOf("end_header\n") + "end_header\n".length;
  const [vertexCount, faceCount] = ["vertex", "face"].map((name) => Number(head.match(`element ${name} (\\d+)`)[1]));
  const data = new DataView(buffer, body);
  const places = new Float32Array(3 * vertexCount);
  for (let n = 0; n < places.length; n += 1) places[n] = data.getFloat32(4 * n, true);
  const corners = new Uint16Array(3 * faceCount);
  for (let n = 0; n < corners.length; n += 1) {
    corners[n] = data.getInt32(12 * vertexCount + 13 * Math.floor(n / 3) + 1 + 4 * (n % 3), true);
  }
  return { places, corners, normals: normalsOf(places, corners) };
}

// The mean direction of the triangles around each vertex, large ones counting more.
function normalsOf(places, corners) {
  const normals = new Float32Array(places.length);
  for (let n = 0; n < corners.length; n += 3) {
    const [a, b, c] = [0, 1, 2].map((one) => places.subarray(3 * corners[n + one], 3 * corners[n + one] + 3));
    const [u, v] = [[0, 1, 2].map((x) => b[x] - a[x]), [0, 1, 2].map((x) => c[x] - a[x])];
    const across = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (let one = 0; one < 3; one += 1) {
      for (let x = 0; x < 3; x += 1) normals[3 * corners[n + one] + x] += across[x];
    }
  }
  return normals;
}

// The rows right, up and toward the viewer in LPS, after turning by `yaw` about the body's axis and `pitch` forward.
// At 0, 0 the patient is seen from in front: left of the patient to the right, head up.
export function viewAxes(yaw, pitch) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const right = [cy, sy, 0];
  const level = [sy, -cy, 0];
  return [
    right,
    [-sp * level[0], -sp * level[1], cp],
    [cp * level[0], cp * level[1], sp],
  ];
}

function lettersToward(direction) {
  return [0, 1, 2]
    .sort((one, other) => Math.abs(direction[other]) - Math.abs(direction[one]))
    .filter((axis) => Math.abs(direction[axis]) > LETTER_THRESHOLD)
    .map((axis) => LETTERS[axis][direction[axis] > 0 ? 1 : 0])
    .join("");
}

// A scene on two canvases of the same size: WebGL below, letters above. Throws when there is no WebGL.
export class Scene {
  constructor(canvas, letters, title, surfaces) {
    this.canvas = canvas;
    this.letters = letters;
    this.title = title;
    this.gl = canvas.getContext("webgl", { antialias: true, alpha: false });
    if (!this.gl) throw new Error("this browser has no WebGL");
    this.program = this.link();
    this.parts = Object.fromEntries(Object.entries(surfaces).map(([space, one]) => [space, this.upload(one)]));
    this.frame(surfaces.total_fluid_space.places);
  }

  draw({ yaw, pitch, solid }) {
    const { gl, canvas } = this;
    const axes = viewAxes(yaw, pitch);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(this.program);
    const columns = [0, 1, 2].flatMap((x) => axes.map((axis) => axis[x]));
    gl.uniformMatrix3fv(this.at("toView"), false, columns);
    gl.uniform3fv(this.at("middle"), this.middle);
    gl.uniform1f(this.at("scale"), this.scale);
    this.paint("endolymph", 1, null);
    if (solid) {
      this.paint("total_fluid_space", 1, null);
    } else { // what faces away first, then what faces the viewer: close enough to sorted for one closed surface
      this.paint("total_fluid_space", TRANSLUCENT, gl.FRONT);
      this.paint("total_fluid_space", TRANSLUCENT, gl.BACK);
    }
    this.annotate(axes);
  }

  paint(space, opacity, hidden) {
    const { gl } = this;
    const part = this.parts[space];
    const through = opacity < 1;
    gl.depthMask(!through);
    through ? gl.enable(gl.BLEND) : gl.disable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    hidden === null ? gl.disable(gl.CULL_FACE) : gl.enable(gl.CULL_FACE);
    if (hidden !== null) gl.cullFace(hidden);
    gl.uniform4fv(this.at("color"), [...COLORS[space], opacity]);
    for (const [name, buffer] of [["place", part.places], ["normal", part.normals]]) {
      const attribute = gl.getAttribLocation(this.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(attribute);
      gl.vertexAttribPointer(attribute, 3, gl.FLOAT, false, 0, 0);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, part.corners);
    gl.drawElements(gl.TRIANGLES, part.count, gl.UNSIGNED_SHORT, 0);
    gl.depthMask(true);
  }

  annotate([right, up]) {
    const { letters } = this;
    const pen = letters.getContext("2d");
    const size = Math.round(13 * (letters.width / letters.clientWidth || 1));
    const away = (direction) => direction.map((part) => -part);
    pen.clearRect(0, 0, letters.width, letters.height);
    const edges = { left: away(right), right, top: up, bottom: away(up) };
    const named = Object.fromEntries(Object.entries(edges).map(([edge, toward]) => [edge, lettersToward(toward)]));
    writeLetters(pen, letters, named, size);
    write(pen, this.title, 8, 8, "left", "top", size);
    write(pen, "Research use only", letters.width - 8, letters.height - 8, "right", "bottom", Math.round(size * 0.85));
  }

  // The bounding box's diagonal fills a little more than the picture; an ear is never as wide as its diagonal.
  frame(places) {
    const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
    places.forEach((value, n) => {
      low[n % 3] = Math.min(low[n % 3], value);
      high[n % 3] = Math.max(high[n % 3], value);
    });
    this.middle = low.map((value, x) => (places.length ? (value + high[x]) / 2 : 0));
    const reach = Math.hypot(...high.map((value, x) => value - low[x])) / 2;
    this.scale = 1.15 / (Number.isFinite(reach) && reach > 0 ? reach : 1);
  }

  upload({ places, normals, corners }) {
    const { gl } = this;
    const buffer = (kind, data) => {
      const made = gl.createBuffer();
      gl.bindBuffer(kind, made);
      gl.bufferData(kind, data, gl.STATIC_DRAW);
      return made;
    };
    return {
      places: buffer(gl.ARRAY_BUFFER, places),
      normals: buffer(gl.ARRAY_BUFFER, normals),
      corners: buffer(gl.ELEMENT_ARRAY_BUFFER, corners),
      count: corners.length,
    };
  }

  link() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error("this browser's WebGL cannot draw surfaces");
    return program;
  }

  at(name) {
    return this.gl.getUniformLocation(this.program, name);
  }
}
