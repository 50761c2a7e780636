# Run by the build: puts what TOOL says of its options, and what all pages share, into SOURCE, and
# writes PAGE and COMPLETION.
foreach(format mdoc bash)
    execute_process(COMMAND ${TOOL} --help=${format} OUTPUT_VARIABLE ${format}
        OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endforeach()
cmake_path(GET SOURCE PARENT_PATH folder)
foreach(part exit_status folders)
    file(READ ${folder}/${part}.mdoc text)
    string(STRIP "${text}" text)
    string(TOUPPER ${part} name)
    set(${name} "${text}")
endforeach()
set(OPTIONS "${mdoc}")
configure_file(${SOURCE} ${PAGE} @ONLY)
file(WRITE ${COMPLETION} "${bash}\n")
