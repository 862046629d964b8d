-- Tells the Hydrops Node that an MR series has begun to arrive in this Orthanc, and that it has come to rest. A hint,
-- nothing more: the node reads Orthanc's own list of changes, so a lost call costs seconds, never a study.
--
-- Storing does not wait for this: Orthanc hands Lua its events from a queue, in one thread. Other scripts do wait,
-- so after a call that failed this keeps still for SILENCE_S: a node that is gone costs one timeout now and then
-- instead of one per series.
--
-- Settings, in Orthanc's configuration (see README.md beside this file):
--   "HydropsNode": {"WakeUrl": "http://127.0.0.1:8080/wake/orthanc", "WakeToken": "${HYDROPS_WAKE_TOKEN:-}"}

local TIMEOUT_S = 1 -- where Orthanc lets a script set it; in 1.10.1 "HttpTimeout" of its configuration counts
local SILENCE_S = 60
local REMEMBERED = 1000 -- series that have been told of as begun; after that many, all are forgotten

local settings = (GetOrthancConfiguration() or {})['HydropsNode'] or {}
local url = settings['WakeUrl'] or ''
if url == '' then
  url = 'http://127.0.0.1:8080/wake/orthanc'
end
local headers = { ['Content-Type'] = 'application/json', ['X-Hydrops-Token'] = settings['WakeToken'] or '' }
local silentUntil = 0
local begun = {}
local begunCount = 0

local function call(event, seriesId)
  if SetHttpTimeout ~= nil then
    SetHttpTimeout(TIMEOUT_S)
  end
  -- An Orthanc id is hexadecimal, so it needs no quoting. Nothing about the patient leaves here.
  local body = '{"event": "' .. event .. '", "series": "' .. seriesId .. '"}'
  return HttpPost(url, body, headers) ~= nil
end

local function wake(event, seriesId)
  if os.time() < silentUntil then
    return
  end
  local ran, answered = pcall(call, event, seriesId)
  if not (ran and answered) then
    silentUntil = os.time() + SILENCE_S
    print('Hydrops Node does not answer at ' .. url .. '; it will find series ' .. seriesId .. ' by itself')
  end
end

-- Orthanc has no event for a new series that Lua sees: the first image of each one stands for it. Results are SEG and
-- SR: with MR alone the node never wakes itself.
function OnStoredInstance(instanceId, tags, metadata)
  local series = tags['SeriesInstanceUID']
  if tags['Modality'] ~= 'MR' or series == nil or begun[series] then
    return
  end
  if begunCount == REMEMBERED then
    begun, begunCount = {}, 0
  end
  begun[series], begunCount = true, begunCount + 1
  local found, instance = pcall(RestApiGet, '/instances/' .. instanceId)
  if found and instance ~= nil then
    wake('NewSeries', ParseJson(instance)['ParentSeries'])
  end
end

function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'MR' then
    wake('StableSeries', seriesId)
  end
end
