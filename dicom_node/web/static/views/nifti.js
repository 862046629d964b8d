// Reads the NIfTI-1 files of a view pack: little endian, one file, gzipped, uint8 or int16 with a slope.

const HEADER_BYTES = 348;
const UINT8 = 2;
const INT16 = 4;

// Largest difference in mm between the place a file states and the place the manifest states.
const SAME_PLACE_MM = 1e-3;

// Fetches and unpacks one file. Returns {values, slope, shape}: values run i fastest, then j, then k; shape is [K, J, I].
export async function readVolume(address, geometry) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: the node answered ${answer.status}`);
  const packed = new Blob([await answer.arrayBuffer()]);
  const unpacked = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  return parseVolume(await new Response(unpacked).arrayBuffer(), address, geometry);
}

export function parseVolume(buffer, name, geometry) {
  const header = new DataView(buffer);
  if (header.getInt32(0, true) !== HEADER_BYTES) throw new Error(`${name}: not a NIfTI-1 file`);
  const [i, j, k] = [1, 2, 3].map((axis) => header.getInt16(40 + 2 * axis, true));
  checkPlace(header, name, [k, j, i], geometry);
  const begin = header.getFloat32(108, true);
  const type = header.getInt16(70, true);
  const count = i * j * k;
  if (type !== UINT8 && type !== INT16) throw new Error(`${name}: expected uint8 or int16, found type ${type}`);
  const values = type === UINT8 ? new Uint8Array(buffer, begin, count) : new Int16Array(buffer, begin, count);
  return { values, slope: header.getFloat32(112, true) || 1, shape: [k, j, i] };
}

// A mirrored picture is worse than none: the file has to lie where the manifest, and so the letters, say.
function checkPlace(header, name, shape, geometry) {
  if (shape.some((size, axis) => size !== geometry.shape[axis])) {
    throw new Error(`${name}: expected ${geometry.shape} voxels, found ${shape}`);
  }
  for (let row = 0; row < 3; row += 1) {
    const toRas = row < 2 ? -1 : 1;
    for (let column = 0; column < 4; column += 1) {
      const stated = header.getFloat32(280 + 16 * row + 4 * column, true);
      const expected = toRas * geometry.index_to_lps[row][column === 3 ? 3 : 2 - column];
      if (Math.abs(stated - expected) > SAME_PLACE_MM) {
        throw new Error(`${name}: lies elsewhere in the patient than the node says; it is not shown`);
      }
    }
  }
}
