// One plane of one ear on a canvas: the grid's own voxels, shown the radiological way, with the segmentation over it.

export const TOTAL_FLUID = "#56b4e9";
export const ENDOLYMPH = "#e69f00";

const TEXT = "#ebebeb";
const SCALE_MM = 5;
const MARGIN = 8;
const CROSSHAIR = "rgba(255, 255, 255, 0.35)";

// How voxel (row, column) of the picture of slice `index` is found in the file: its offset and the two strides.
export function layout(geometry, plane, index) {
  const strides = [geometry.shape[1] * geometry.shape[2], geometry.shape[2], 1];
  const { through, down, right, flip_down: flipDown, flip_right: flipRight } = geometry.planes[plane];
  const [rows, columns] = [geometry.shape[down], geometry.shape[right]];
  return {
    rows,
    columns,
    offset: index * strides[through]
      + (flipDown ? (rows - 1) * strides[down] : 0) + (flipRight ? (columns - 1) * strides[right] : 0),
    down: flipDown ? -strides[down] : strides[down],
    right: flipRight ? -strides[right] : strides[right],
    heightMm: rows * geometry.spacing_mm[down],
    widthMm: columns * geometry.spacing_mm[right],
  };
}

// Draws a slice. `state` holds image {values, slope}, labels, labelOf, window [low, high], overlay "contour" | "fill"
// | "none", opacity 0..1, position [k, j, i], title.
export function drawSlice(canvas, geometry, plane, state) {
  const pen = canvas.getContext("2d");
  const index = state.position[geometry.planes[plane].through];
  const grid = layout(geometry, plane, index);
  const place = placement(canvas, grid);
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  drawGray(pen, grid, place, state);
  if (state.overlay !== "none") drawOverlay(pen, grid, place, state);
  drawCrosshair(pen, geometry.planes[plane], grid, place, state.position);
  drawText(pen, canvas, geometry.planes[plane].letters, place, state.title);
}

// Where the picture lies on the canvas, in canvas pixels: as large as fits, millimeters square.
export function placement(canvas, grid) {
  const perMm = Math.min(canvas.width / grid.widthMm, canvas.height / grid.heightMm);
  const [width, height] = [grid.widthMm * perMm, grid.heightMm * perMm];
  return { left: (canvas.width - width) / 2, top: (canvas.height - height) / 2, width, height, perMm };
}

// The voxel under a point of the canvas, as [k, j, i]; `position` keeps its coordinate through the plane.
export function voxelAt(canvas, geometry, plane, position, x, y) {
  const how = geometry.planes[plane];
  const grid = layout(geometry, plane, 0);
  const place = placement(canvas, grid);
  const row = clamp(Math.floor(((y - place.top) / place.height) * grid.rows), 0, grid.rows - 1);
  const column = clamp(Math.floor(((x - place.left) / place.width) * grid.columns), 0, grid.columns - 1);
  const found = [...position];
  found[how.down] = how.flip_down ? grid.rows - 1 - row : row;
  found[how.right] = how.flip_right ? grid.columns - 1 - column : column;
  return found;
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function drawGray(pen, grid, place, state) {
  const picture = new ImageData(grid.columns, grid.rows);
  const [low, high] = state.window;
  const scale = (255 * state.image.slope) / (high - low);
  const shift = (-255 * low) / (high - low);
  forEachVoxel(grid, (at, from) => {
    const gray = clamp(state.image.values[from] * scale + shift, 0, 255);
    picture.data[4 * at] = gray;
    picture.data[4 * at + 1] = gray;
    picture.data[4 * at + 2] = gray;
    picture.data[4 * at + 3] = 255;
  });
  const native = new OffscreenCanvas(grid.columns, grid.rows);
  native.getContext("2d").putImageData(picture, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(native, place.left, place.top, place.width, place.height);
}

function drawOverlay(pen, grid, place, state) {
  const { total_fluid_space: fluid, endolymph } = state.labelOf;
  const spaces = [
    [TOTAL_FLUID, (label) => label === fluid || label === endolymph],
    [ENDOLYMPH, (label) => label === endolymph],
  ];
  pen.save();
  pen.globalAlpha = state.opacity;
  pen.translate(place.left, place.top);
  for (const [color, belongs] of spaces) {
    const inside = new Uint8Array(grid.rows * grid.columns);
    forEachVoxel(grid, (at, from) => { inside[at] = belongs(state.labels[from]) ? 1 : 0; });
    if (state.overlay === "fill") fillCells(pen, inside, grid, place, color);
    else strokeRim(pen, inside, grid, place, color);
  }
  pen.restore();
}

function fillCells(pen, inside, grid, place, color) {
  const [height, width] = [place.height / grid.rows, place.width / grid.columns];
  pen.fillStyle = color;
  pen.beginPath();
  inside.forEach((yes, at) => {
    if (yes) pen.rect((at % grid.columns) * width, Math.floor(at / grid.columns) * height, width, height);
  });
  pen.fill();
}

// Lines along the edges between voxels inside and voxels outside: what the segmentation says, without smoothing.
function strokeRim(pen, inside, grid, place, color) {
  const [height, width] = [place.height / grid.rows, place.width / grid.columns];
  const has = (row, column) =>
    row >= 0 && column >= 0 && row < grid.rows && column < grid.columns && inside[row * grid.columns + column] === 1;
  pen.strokeStyle = color;
  pen.lineWidth = Math.max(1.5, place.perMm * 0.12);
  pen.lineCap = "square";
  pen.beginPath();
  for (let row = 0; row < grid.rows; row += 1) {
    for (let column = 0; column < grid.columns; column += 1) {
      if (!has(row, column)) continue;
      const [top, left, bottom, right] = [row * height, column * width, (row + 1) * height, (column + 1) * width];
      if (!has(row - 1, column)) line(pen, left, top, right, top);
      if (!has(row + 1, column)) line(pen, left, bottom, right, bottom);
      if (!has(row, column - 1)) line(pen, left, top, left, bottom);
      if (!has(row, column + 1)) line(pen, right, top, right, bottom);
    }
  }
  pen.stroke();
}

// Short marks at the border show where the other planes cut; they never cover the ear.
function drawCrosshair(pen, how, grid, place, position) {
  const row = how.flip_down ? grid.rows - 1 - position[how.down] : position[how.down];
  const column = how.flip_right ? grid.columns - 1 - position[how.right] : position[how.right];
  const x = place.left + ((column + 0.5) / grid.columns) * place.width;
  const y = place.top + ((row + 0.5) / grid.rows) * place.height;
  const length = place.width * 0.06;
  pen.strokeStyle = CROSSHAIR;
  pen.lineWidth = 1.5;
  pen.beginPath();
  line(pen, x, place.top, x, place.top + length);
  line(pen, x, place.top + place.height - length, x, place.top + place.height);
  line(pen, place.left, y, place.left + length, y);
  line(pen, place.left + place.width - length, y, place.left + place.width, y);
  pen.stroke();
}

function drawText(pen, canvas, letters, place, title) {
  const size = Math.round(13 * (canvas.width / canvas.clientWidth || 1));
  writeLetters(pen, canvas, letters, size);
  write(pen, title, MARGIN, MARGIN, "left", "top", size);
  write(pen, "Research use only", canvas.width - MARGIN, canvas.height - MARGIN, "right", "bottom", Math.round(size * 0.85));
  const length = SCALE_MM * place.perMm;
  pen.strokeStyle = TEXT;
  pen.lineWidth = 2;
  pen.beginPath();
  line(pen, MARGIN, canvas.height - MARGIN, MARGIN + length, canvas.height - MARGIN);
  pen.stroke();
  write(pen, `${SCALE_MM} mm`, MARGIN, canvas.height - 2 * MARGIN, "left", "bottom", Math.round(size * 0.85));
}

// The four letters at the edges of a picture.
export function writeLetters(pen, canvas, letters, size) {
  const [x, y] = [canvas.width / 2, canvas.height / 2];
  write(pen, letters.left, MARGIN, y, "left", "middle", size, true);
  write(pen, letters.right, canvas.width - MARGIN, y, "right", "middle", size, true);
  write(pen, letters.top, x, MARGIN, "center", "top", size, true);
  write(pen, letters.bottom, x, canvas.height - MARGIN, "center", "bottom", size, true);
}

export function write(pen, text, x, y, align, baseline, size, bold = false) {
  pen.font = `${bold ? "600 " : ""}${size}px system-ui, sans-serif`;
  pen.textAlign = align;
  pen.textBaseline = baseline;
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.strokeStyle = "#000";
  pen.strokeText(text, x, y);
  pen.fillStyle = TEXT;
  pen.fillText(text, x, y);
}

function forEachVoxel(grid, visit) {
  for (let row = 0, at = 0; row < grid.rows; row += 1) {
    let from = grid.offset + row * grid.down;
    for (let column = 0; column < grid.columns; column += 1, at += 1, from += grid.right) visit(at, from);
  }
}

function line(pen, x1, y1, x2, y2) {
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
}
