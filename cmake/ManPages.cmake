# add_man_page(vm-run)  docs/man/vm-run.1.in with the program's own OPTIONS becomes man/vm-run.1 in
# the build folder, and its shell completion completions/vm-run; both are installed. The page is a
# test, too: mandoc must find nothing to say about it.
find_program(MANDOC mandoc)
add_custom_target(man ALL)

function(add_man_page tool)
    set(source ${PROJECT_SOURCE_DIR}/docs/man/${tool}.1.in)
    set(page ${PROJECT_BINARY_DIR}/man/${tool}.1)
    set(completion ${PROJECT_BINARY_DIR}/completions/${tool})
    add_custom_command(OUTPUT ${page} ${completion}
        COMMAND ${CMAKE_COMMAND} -D TOOL=$<TARGET_FILE:${tool}> -D SOURCE=${source} -D PAGE=${page}
            -D COMPLETION=${completion} -P ${PROJECT_SOURCE_DIR}/cmake/fill_man_page.cmake
        DEPENDS ${tool} ${source} ${PROJECT_SOURCE_DIR}/cmake/fill_man_page.cmake
            ${PROJECT_SOURCE_DIR}/docs/man/exit_status.mdoc ${PROJECT_SOURCE_DIR}/docs/man/folders.mdoc
        VERBATIM)
    add_custom_target(man_${tool} DEPENDS ${page} ${completion})
    add_dependencies(man man_${tool})
    install(FILES ${page} DESTINATION share/man/man1)
    install(FILES ${completion} DESTINATION share/bash-completion/completions)
    if(BUILD_TESTING AND MANDOC)
        add_test(NAME man/${tool} COMMAND ${MANDOC} -T lint -W warning ${page})
        set_tests_properties(man/${tool} PROPERTIES LABELS check TIMEOUT 20)
    endif()
endfunction()
