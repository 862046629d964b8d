-- Tells the Hydrops Node that an MR series has come to rest in this Orthanc. A hint, nothing more: the node reads
-- Orthanc's own list of changes, so a lost call costs seconds, never a study.
--
-- Storing does not wait for this: Orthanc hands Lua its events from a queue, in one thread. Other scripts do wait,
-- so after a call that failed this keeps still for SILENCE_S: a node that is gone costs one timeout now and then
-- instead of one per series.
--
-- Settings, in Orthanc's configuration (see README.md beside this file):
--   "HydropsNode": {"WakeUrl": "http://127.0.0.1:8080/wake/orthanc", "WakeToken": "${HYDROPS_WAKE_TOKEN:-}"}

local TIMEOUT_S = 1 -- where Orthanc lets a script set it; in 1.10.1 "HttpTimeout" of its configuration counts
local SILENCE_S = 60

local settings = (GetOrthancConfiguration() or {})['HydropsNode'] or {}
local url = settings['WakeUrl'] or ''
if url == '' then
  url = 'http://127.0.0.1:8080/wake/orthanc'
end
local headers = { ['Content-Type'] = 'application/json', ['X-Hydrops-Token'] = settings['WakeToken'] or '' }
local silentUntil = 0

local function wake(seriesId)
  if SetHttpTimeout ~= nil then
    SetHttpTimeout(TIMEOUT_S)
  end
  -- An Orthanc id is hexadecimal, so it needs no quoting. Nothing about the patient leaves here.
  local body = '{"event": "StableSeries", "series": "' .. seriesId .. '"}'
  return HttpPost(url, body, headers) ~= nil
end

function OnStableSeries(seriesId, tags, metadata)
  -- Results are SEG and SR: with MR alone the node never wakes itself.
  if tags['Modality'] ~= 'MR' or os.time() < silentUntil then
    return
  end
  local ran, answered = pcall(wake, seriesId)
  if not (ran and answered) then
    silentUntil = os.time() + SILENCE_S
    print('Hydrops Node does not answer at ' .. url .. '; it will find series ' .. seriesId .. ' by itself')
  end
end
